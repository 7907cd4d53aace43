"""Measures live streams on a GPU.

    python scripts/benchmark-gpu-streaming.py --parts steps,capacity,churn --to RESULT.json
    python scripts/benchmark-gpu-streaming.py --parts triton --instances 1,2,4 --streams 2500,5000 --to RESULT.json

The model is a causal Zipformer2 M with random weights, with blank favoured so far that it emits a token every nine
frames, about as English does; `--model` takes another. The parts:

steps     a step of the encoder alone, by the number of streams in it
capacity  the most real-time streams in this process with 95 % of chunks under a latency (`evaluate.stream_capacity`)
churn     streams that start, stop, vanish and lag at random (`evaluate.stream_churn`); what is wrong then makes the
          exit status 1
triton    streams through Triton, paced by processes of their own (`evaluate.streaming_load`)

A chunk's latency counts from when it was due. RESULT.json is written anew after every figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from moulin.evaluate.targets.triton_targets import connect_grpc, connect_grpc_stream, connect_http
from numpy.typing import NDArray

from moulin.arrays import Ints
from moulin.audio.decode import read_audio
from moulin.audio.waveform import in_16_bits
from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.files import PRECISIONS
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import CheckpointSpec, ModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.engine.device import gpu_index
from moulin.engine.gpu.stream_recognizer import GpuStreamRecognizer
from moulin.engine.gpu.stream_runner import GpuStreamRunner
from moulin.engine.host_stream_recognizer import HostStreamRecognizer
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.torch.stream_runner import TorchStreamRunner
from moulin.errors import LaunchError
from moulin.evaluate.connection import Connection
from moulin.evaluate.machine import machine, versions
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.process_usage import cpu_sec_by_process, memory_bytes
from moulin.evaluate.published_sizes import write_speaking_checkpoint
from moulin.evaluate.run import run_plan
from moulin.evaluate.stream_capacity import PacedStreams, largest_load
from moulin.evaluate.stream_churn import Churn, run_churn
from moulin.evaluate.streaming_benchmark import plan
from moulin.evaluate.streaming_clips import Clip, cut
from moulin.evaluate.streaming_load import Pace
from moulin.evaluate.targets.echo_model import build_echo_repository
from moulin.evaluate.targets.target import RunningTarget
from moulin.launch.server import ServerOptions, TritonServer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from moulin.streaming.turns import Turns
from moulin.triton_repo import contract
from moulin.triton_repo.repository import build_streaming_repository
from moulin.triton_repo.streaming_config import StreamingOptions

TOKENS_A_FRAME = 0.11
_TOO_LATE_MS = 1000.0
_TOLD = re.compile(r"^[EW]\d{4} |ModelInstanceInitialize")
_COUNTER = re.compile(r"(?P<name>moulin_\w+_total)\{(?P<labels>[^}]*)\} (?P<value>\S+)")
CONNECT: dict[str, Callable[..., Connection]] = {
    "grpc": connect_grpc,
    "grpc-int16": partial(connect_grpc, int16=True),
    "grpc-stream": connect_grpc_stream,
    "grpc-stream-int16": partial(connect_grpc_stream, int16=True),
    "http": connect_http,
    "http-int16": partial(connect_http, int16=True),
}


@contextmanager
def random_model(device: str) -> Iterator[CheckpointSpec]:
    """A checkpoint that emits as much as speech does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        transducer = write_speaking_checkpoint("zipformer2-causal-66m", folder)
        penalty = _penalty(load_checkpoint_spec(folder, streaming=True), device)
        with torch.no_grad():
            transducer.joiner.output_linear.bias[0] -= penalty
        torch.save({"model": transducer.tensors()}, folder / "epoch-1.pt")
        yield load_checkpoint_spec(folder, streaming=True)


def _penalty(spec: CheckpointSpec, device: str) -> float:
    """What the blank's logit is lowered by for TOKENS_A_FRAME."""
    recordings = [read_audio(clip.audio)[: 6 * 16_000] for clip in demo_clips()]
    runner = TorchStreamRunner(spec, device=device, capacity=len(recordings))
    recognizer = HostStreamRecognizer(spec, runner)
    low, high = -20.0, 20.0
    for _ in range(10):
        middle = (low + high) / 2
        options = StreamOptions(DecodingOptions(blank_penalty=middle), endpoint=False)
        streams = [recognizer.open(options) for _ in recordings]
        for stream, recording in zip(streams, recordings, strict=True):
            recognizer.accept(stream, recording)
        while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
            recognizer.step(ready)
        tokens = sum(len(stream.search.hypothesis().tokens) for stream in streams)
        frames = sum(stream.search.num_frames for stream in streams)
        low, high = (low, middle) if tokens / frames > TOKENS_A_FRAME else (middle, high)
        for stream in streams:
            recognizer.close(stream)
    return low


def _step(runner: GpuStreamRunner, turns: Callable[[Ints], Turns], slots: Ints) -> None:
    runner.step(turns(slots), np.zeros(0, np.int64))


def steps(spec: CheckpointSpec, device: str) -> Iterator[dict[str, Any]]:
    """A step from samples in host memory to tokens there, and the GPU's part of it alone; beside it the encoder as
    plain modules in fp32, from features to encoder frames."""
    assert spec.streaming is not None
    capacity, largest = 8192, 4096
    before = torch.cuda.memory_allocated()
    rng = np.random.default_rng(0)

    def report(name: str, batch: int, run: Callable[[Ints], Any]) -> dict[str, Any]:
        times = []
        for _ in range(30):
            slots = rng.permutation(capacity)[:batch]
            start = time.perf_counter()
            run(slots)
            times.append((time.perf_counter() - start) * 1e3)
        times = sorted(times[5:])
        used = (torch.cuda.memory_allocated() - before) >> 20
        return {
            "runner": name,
            "batch": batch,
            "p50_ms": times[len(times) // 2],
            "p95_ms": times[-2],
            "memory_mib": used,
        }

    ours = GpuStreamRunner(replace(spec, run_in="fp16"), max_batch=largest, capacity=capacity, device=device)
    ours.inbox[:] = rng.normal(0, 0.05, ours.inbox.shape)
    for batch in (1, 16, 64, 256, 512, 1024, 2048, 4096):
        numbers, heard = np.full(batch, 10, np.int32), np.full(batch, ours.windows.samples, np.int32)
        fresh, zeros, ones = np.zeros(batch, np.bool_), np.zeros(batch, np.float32), np.ones(batch, np.float32)
        turns = partial(Turns, numbers=numbers, heard=heard, fresh=fresh, blank_penalties=zeros, sharpness=ones)
        yield {**report("gpu", batch, partial(_step, ours, turns)), "gpu_ms": ours.pipeline.replay_ms(batch)}
    del ours
    torch.cuda.empty_cache()
    plain = TorchStreamRunner(spec, max_batch=largest, capacity=capacity, device=device)
    for batch in (1, 16, 64, 256, 512, 1024):
        size = (batch, spec.streaming.window_frames, spec.feature_dim)
        windows = rng.normal(-8, 3, size).astype(np.float32)
        yield report("torch", batch, partial(plain.encoder, windows))


def capacity(spec: ModelSpec, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every run of the search, and what it found."""
    lowest, highest = arguments.capacity_streams
    recognizer = _recognizer(spec, arguments, highest)
    speech = _speech()
    audio = speech if arguments.capacity_dtype == "int16" else speech / np.float32(32768)
    streams = PacedStreams(recognizer, audio, threads=arguments.capacity_threads)
    deadline = time.monotonic() + arguments.capacity_budget_sec
    found = 0

    def run(count: int) -> bool:
        _say(f"capacity: {count} streams")
        measured = streams.run(count, seconds=arguments.capacity_seconds)
        runs.append({**measured.to_dict(), "characters": _characters(streams), "memory_mib": memory(arguments.device)})
        return measured.holds(arguments.limit_ms)

    runs: list[dict[str, Any]] = []
    for count, held in largest_load(run, lowest, highest):
        found = max(found, count if held else 0)
        yield {**runs[-1], "held": held}
        if time.monotonic() > deadline:
            _say("capacity: out of time, the search is not complete")
            break
    streams.close()
    yield {"largest": found, "p95_below_ms": arguments.limit_ms, "audio": arguments.capacity_dtype, "slots": highest}


def _characters(streams: PacedStreams, count: int = 100) -> float:
    """That a stream has said so far, the mean of some."""
    some = streams.streams[:count]
    return round(sum(len(streams.recognizer.text(stream)) for stream in some) / len(some), 1)


def churn(spec: ModelSpec, arguments: argparse.Namespace) -> dict[str, Any]:
    """Streams by the hundred thousand, and samples of them by the plain modules in fp32."""
    wanted = Churn(streams=arguments.churn_streams, open_at_once=arguments.churn_open, seed=arguments.seed)
    recognizer = _recognizer(spec, arguments, wanted.open_at_once)
    if isinstance(spec, CheckpointSpec):
        plain: StreamRecognizer = HostStreamRecognizer(
            spec, TorchStreamRunner(spec, device=arguments.device, capacity=512)
        )
    else:
        plain = open_stream_recognizer(spec.path, max_streams=512)
    exact = arguments.precision == "fp32" or gpu_index(arguments.device) is None
    max_differing = arguments.max_differing
    if max_differing is None:
        max_differing = 0.0 if exact else 0.03
    report = run_churn(
        recognizer,
        plain,
        _speech(),
        wanted,
        memory=partial(memory, arguments.device),
        max_differing=max_differing,
        on_quarter=lambda number: _say(f"churn: {number} of 4 quarters have gone"),
    )
    return report.to_dict()


def memory(device: str) -> dict[str, float]:
    """MiB of this process, of its tensors on the card, and of all that is used there."""
    used = {"resident": memory_bytes(os.getpid()) / 2**20}
    if gpu_index(device) is not None:
        torch.cuda.synchronize(device)
        free, total = torch.cuda.mem_get_info(device)
        used["card_tensors"] = torch.cuda.memory_allocated(device) / 2**20
        used["card_reserved"] = torch.cuda.memory_reserved(device) / 2**20
        used["card"] = (total - free) / 2**20
    return {name: round(mib, 1) for name, mib in used.items()}


def _recognizer(spec: ModelSpec, arguments: argparse.Namespace, max_streams: int) -> StreamRecognizer:
    """As the service opens it; but in fp32 the GPU engine too, where the service has the plain modules."""
    _say(f"opening the recognizer with {max_streams} slots")
    begin = time.monotonic()
    sizes = {"max_batch": arguments.max_batch, "device": arguments.device}
    if isinstance(spec, CheckpointSpec) and gpu_index(arguments.device) is not None and arguments.precision == "fp32":
        exact = replace(spec, run_in="fp32")
        recognizer: StreamRecognizer = GpuStreamRecognizer(exact, GpuStreamRunner(exact, capacity=max_streams, **sizes))
    else:
        recognizer = open_stream_recognizer(spec.path, precision=arguments.precision, max_streams=max_streams, **sizes)
    recognizer.warm_up()
    _say(f"{type(recognizer).__name__} ready after {time.monotonic() - begin:.1f} s, {memory(arguments.device)} MiB")
    return recognizer


def _speech() -> NDArray[np.int16]:
    """All demo recordings behind each other."""
    return in_16_bits(np.concatenate([read_audio(clip.audio) for clip in demo_clips()]))


def through_triton(
    spec: ModelSpec, arguments: argparse.Namespace, instances: int, loads: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """One server, a run for each wire and number of streams; after one that was too many, none with more."""
    options = StreamingOptions(
        device=arguments.device,
        instances=instances,
        # Each instance has its share of the slots, and Triton deals sequences out as it likes.
        max_streams=instances * math.ceil(1.3 * max(loads) / instances),
        max_batch=arguments.max_batch,
        queue_delay_ms=arguments.queue_delay_ms,
        linger_ms=arguments.linger_ms,
    )
    clips = [
        cut(read_audio(clip.audio), clip.text, spec.streaming, arguments.chunk_ms * 16, clip.audio.stem)
        for clip in demo_clips()
    ]
    with tempfile.TemporaryDirectory() as repository:
        if arguments.echo:
            build_echo_repository(Path(repository), spec, replace(options, device="cpu"))
        else:
            build_streaming_repository(spec, Path(repository), options, link=True)
        with _server(Path(repository), instances, arguments.ready_sec) as server:
            for wire in arguments.wires.split(","):
                for streams in sorted(loads):
                    _say(f"triton: {instances} instances, {wire}, {streams} streams")
                    measured = _run_through_triton(server, clips, arguments, wire, streams)
                    yield {"instances": instances, **measured}
                    if measured["failures"] or (measured["latency_ms"]["p95"] or math.inf) > _TOO_LATE_MS:
                        break


@contextmanager
def _server(repository: Path, instances: int, ready_sec: float) -> Iterator[TritonServer]:
    """A tritonserver that is ready, or the end of its log."""
    _say(f"triton: starting a server with {instances} instances")
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_sec=3)
    with TritonServer(repository, options, on_line=_warning) as server:
        try:
            server.wait_ready(timeout_sec=ready_sec)
        except LaunchError:
            _say("\n".join(["triton: the end of the log:", *server.log_tail[-40:]]))
            raise
        _say("triton: ready")
        yield server
        _say("triton: stopping the server")
    _say("triton: stopped")


def _warning(line: str) -> None:
    """Of tritonserver's lines those that one would want to have seen."""
    if _TOLD.search(line):
        _say(line[:300])


def _run_through_triton(
    server: TritonServer, clips: Sequence[Clip], arguments: argparse.Namespace, wire: str, streams: int
) -> dict[str, Any]:
    assert server.pid is not None
    url = server.grpc_url if wire.startswith("grpc") else server.http_url
    running = RunningTarget(server.pid, partial(CONNECT[wire], url, contract.MODEL_NAME, ""))
    pace = Pace(arguments.chunk_ms * 16, arguments.seconds, warmup_sec=arguments.warmup)
    before, metrics = cpu_sec_by_process(server.pid), _metrics(server.metrics_url)
    run = asyncio.run(run_plan(wire, running, plan(clips, streams, pace, arguments.processes), str.upper))
    after = cpu_sec_by_process(server.pid)
    time.sleep(1.5)
    metrics_after = _metrics(server.metrics_url)
    figures = run.measurement.to_dict(brief=True)
    requests = figures["requests_sent"]
    cpu_us = {pid: round((sec - before.get(pid, 0.0)) / requests * 1e6, 1) for pid, sec in after.items()}
    requests_a_sec = streams * 1000 / arguments.chunk_ms
    kept = ("latency_ms", "last_quarter_p95_ms", "failures", "failure_examples", "generator_late_p95_ms", "gpus")
    return {
        "wire": wire,
        "model": "echo" if arguments.echo else "transducer",
        "streams": streams,
        "seconds": arguments.seconds,
        "chunk_ms": arguments.chunk_ms,
        "linger_ms": arguments.linger_ms,
        "queue_delay_ms": arguments.queue_delay_ms,
        "processes": arguments.processes,
        "chunks_measured": figures["chunks_measured"],
        **{name: figures[name] for name in kept if name in figures},
        "generator_cores": round(figures["generator_cpu_sec"] / arguments.seconds, 2),
        "requests_sent": requests,
        # Of all requests from the first to the last, warm-up included; and what that is at the pace of the run.
        "tritonserver_us_a_request": cpu_us[server.pid],
        "tritonserver_cores": round(cpu_us.pop(server.pid) * requests_a_sec / 1e6, 2),
        "stubs_us_a_request": round(sum(cpu_us.values()), 1),
        "stub_cores": sorted((round(us * requests_a_sec / 1e6, 2) for us in cpu_us.values()), reverse=True),
        "server_memory_mib": figures["server_memory_mib"],
        # Of the run alone, and for each instance by itself: that Triton shares the streams among them.
        "metrics": {name: _changes(metrics.get(name, {}), its) for name, its in metrics_after.items()},
    }


def _changes(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    return [round(value - before.get(instance, 0.0), 3) for instance, value in sorted(after.items())]


def _metrics(url: str) -> dict[str, dict[str, float]]:
    """moulin's own counters, by instance; they are published every second."""
    from urllib.request import urlopen

    found: dict[str, dict[str, float]] = {}
    with urlopen(url, timeout=10) as reply:
        for line in reply.read().decode().splitlines():
            if counter := _COUNTER.match(line):
                found.setdefault(counter["name"], {})[counter["labels"]] = float(counter["value"])
    return found


_BEGIN = time.monotonic()


def _say(what: str) -> None:
    """Progress, for whoever sees only what had been written when the time was up."""
    print(f"[{time.monotonic() - _BEGIN:6.1f} s] {what}", file=sys.stderr, flush=True)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--parts", default="triton")
    parser.add_argument("--model", type=Path, help="a streaming model's folder instead of random weights")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precision", choices=PRECISIONS, help="by default fp16 on a GPU, fp32 on the CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-batch", type=int)
    of_capacity = parser.add_argument_group("capacity")
    of_capacity.add_argument("--capacity-streams", type=_numbers, default=[2000, 60_000], metavar="LOWEST,HIGHEST")
    of_capacity.add_argument("--capacity-seconds", type=float, default=6.0, help="measured of each run")
    of_capacity.add_argument("--capacity-budget-sec", type=float, default=100.0, help="after which no run begins")
    of_capacity.add_argument("--capacity-dtype", choices=["int16", "float32"], default="int16")
    of_capacity.add_argument("--capacity-threads", type=int, help="by default as many as the runner has workers")
    of_capacity.add_argument("--limit-ms", type=float, default=160.0, help="for 95 of 100 chunks")
    of_churn = parser.add_argument_group("churn")
    of_churn.add_argument("--churn-streams", type=int, default=100_000)
    of_churn.add_argument("--churn-open", type=int, default=2000, help="at once")
    of_churn.add_argument("--max-differing", type=float, help="share of characters; by default 0.03, none in fp32")
    of_triton = parser.add_argument_group("triton")
    of_triton.add_argument("--instances", type=_numbers, default=[1, 2, 4])
    of_triton.add_argument("--streams", type=_numbers, default=[2500])
    of_triton.add_argument("--wires", default="grpc", help=f"of {', '.join(CONNECT)}")
    of_triton.add_argument("--seconds", type=float, default=15.0)
    of_triton.add_argument("--warmup", type=float, default=5.0)
    of_triton.add_argument("--chunk-ms", type=int, default=320)
    of_triton.add_argument("--processes", type=int, default=4, help="load generators")
    of_triton.add_argument("--queue-delay-ms", type=float, default=StreamingOptions.queue_delay_ms)
    of_triton.add_argument("--linger-ms", type=float, default=0.0, help="see StreamingOptions")
    of_triton.add_argument("--ready-sec", type=float, default=240.0, help="how long a server may take to start")
    of_triton.add_argument("--echo", action="store_true", help="a model that does nothing: what all the others cost")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    result: dict[str, Any] = {
        "kind": "gpu-streaming",
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "scripts/benchmark-gpu-streaming.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(),
    }

    def add(name: str, measured: dict[str, Any]) -> None:
        result.setdefault(name, []).append(measured)
        _say(f"{name} {json.dumps(measured)}")
        if arguments.to:
            arguments.to.write_text(json.dumps(result, indent=1) + "\n")

    def measure(spec: ModelSpec) -> None:
        if "steps" in parts:
            assert isinstance(spec, CheckpointSpec)
            for step in steps(spec, arguments.device):
                add("steps", step)
        if "capacity" in parts:
            for run in capacity(spec, arguments):
                add("capacity", run)
        if "churn" in parts:
            add("churn", churn(spec, arguments))
        if "triton" in parts:
            for instances in arguments.instances:
                try:
                    for run in through_triton(spec, arguments, instances, arguments.streams):
                        add("triton", run)
                except Exception as error:  # what others measure is worth having
                    add("triton", {"instances": instances, "error": repr(error)})

    if arguments.model:
        measure(load_model(arguments.model, expect="streaming"))
    else:
        with random_model(arguments.device) as spec:
            measure(spec)
    if faults := [fault for report in result.get("churn", ()) for fault in report["faults"]]:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
