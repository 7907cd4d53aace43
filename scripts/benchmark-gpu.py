"""Measures the GPU engine: encoders, the whole pipeline in process, and the service through Triton.

    python scripts/benchmark-gpu.py --to docs/benchmarks/results/DATE-MACHINE-gpu-engine.json

Models have published sizes and random weights, with blank favoured so far that they emit a token every nine frames,
about as English does. Audio is cut out of the demo recordings at random, 2 to 20 s long. docs/benchmarks/README.md says
what is timed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from moulin.engine.gpu.recognizer import GpuRecognizer

from moulin.arrays import Floats
from moulin.decoding.options import DecodingOptions
from moulin.evaluate.machine import machine, versions
from moulin.evaluate.published_sizes import random_transducer, write_speaking_checkpoint

TOKENS_A_FRAME = 0.11
BATCHES = (1, 8, 16, 32, 64, 128)
FRAMES = 663
GREEDY, BEAM = DecodingOptions(), DecodingOptions("modified_beam_search")


def corpus(recordings: Floats, count: int, seed: int) -> list[Floats]:
    random = np.random.default_rng(seed)
    lengths = (random.uniform(2, 20, count) * 16_000).astype(int)
    starts = random.integers(0, len(recordings) // 2, count)
    return [recordings[start : start + length].copy() for start, length in zip(starts, lengths, strict=True)]


def encoder_latencies(size: str, frames: int) -> dict[str, Any]:
    """Milliseconds of a pass in fp16, features on the GPU, as a CUDA graph and by the modules: medians of five."""
    from moulin.gpu.graphs import EncoderGraphs
    from moulin.gpu.open_encoder import gpu_encoder

    transducer = random_transducer(size)
    device = torch.device("cuda")
    encoder = gpu_encoder(transducer, device=device, dtype=torch.float16, max_frames=3000)
    latencies: dict[str, float] = {}
    plain: dict[str, float] = {}
    for batch in BATCHES:
        graphs = EncoderGraphs(encoder, device=device, joiner_dim=512, max_batch_frames=batch * frames)
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            features, counts = graphs.inputs(batch, frames)
            features.normal_(-5, 3)
            counts.copy_(torch.from_numpy(encoder.counts_of(frames).repeat(batch, axis=1)))
            for _ in range(5):
                graphs.run(features, counts)
            times = []
            for _ in range(5):
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
                begin.record()
                for _ in range(4):
                    graphs.run(features, counts)
                end.record()
                torch.cuda.synchronize()
                times.append(begin.elapsed_time(end) / 4)
        latencies[str(batch)] = statistics.median(times)
    modules = transducer.encoder.to(device, torch.float16)
    with torch.inference_mode():
        for batch in BATCHES:
            x = torch.randn(batch, frames, encoder.feature_dim, device=device, dtype=torch.float16)
            lengths = torch.full((batch,), frames, device=device)
            times = []
            for _ in range(6):
                torch.cuda.synchronize()
                begin_sec = time.perf_counter()
                modules(x, lengths)
                torch.cuda.synchronize()
                times.append((time.perf_counter() - begin_sec) * 1e3)
            plain[str(batch)] = statistics.median(times[1:])
    return {"size": size, "frames": frames, "ms": latencies, "plain_modules_ms": plain}


@contextmanager
def model(size: str, recordings: Floats) -> Iterator[tuple[GpuRecognizer, float, Path]]:
    """A recognizer, the blank penalty at which it emits as much as speech does, and its folder."""
    from moulin.bundle.checkpoint_spec import load_checkpoint_spec

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_speaking_checkpoint(size, folder)
        spec = load_checkpoint_spec(folder, streaming=False)
        with GpuRecognizer(replace(spec, run_in="fp16")) as recognizer:
            recognizer.warm_up()
            sample = corpus(recordings, 48, 5)
            frames = sum(map(len, sample)) / 640
            low, high = -20.0, 20.0
            for _ in range(14):
                middle = (low + high) / 2
                heard = recognizer.transcribe(sample, [DecodingOptions(blank_penalty=middle)] * len(sample))
                tokens = sum(len(transcript.text.replace(" ", "")) // 2 for transcript in heard)
                low, high = (low, middle) if tokens / frames > TOKENS_A_FRAME else (middle, high)
            yield recognizer, low, folder


def pipeline(
    recognizer: GpuRecognizer, penalty: float, recordings: Floats, options: DecodingOptions, batch: int, calls: int
) -> dict[str, Any]:
    """Waveforms in host memory to transcripts with word times, the calls of one size of batch one after the other."""
    options = replace(options, blank_penalty=penalty)
    result: dict[str, Any] = {"method": options.method, "beam": options.beam, "batch": batch, "calls": calls}
    for dtype in ("float32", "int16"):
        batches = [corpus(recordings, batch, seed) for seed in range(calls)]
        if dtype == "int16":
            batches = [[(wav * 32767).astype(np.int16) for wav in one] for one in batches]
        for _ in range(3):  # every size of batch has its graph then
            for one in batches:
                recognizer.transcribe(one, [options] * batch)
        times = []
        for one in batches:
            begin = time.perf_counter()
            recognizer.transcribe(one, [options] * batch)
            times.append(time.perf_counter() - begin)
        seconds = [sum(map(len, one)) / 16_000 for one in batches]
        result[dtype] = {"rtfx": sum(seconds) / sum(times), "call_ms": times_ms(times)}
    return result


def breakdown(recognizer: GpuRecognizer, penalty: float, recordings: Floats) -> Iterator[dict[str, Any]]:
    """Where a call of 256 utterances spends its time: milliseconds of the calling thread in each step (medians of 12;
    `_read` includes `_spell` and waits for the GPU), and for how long the GPU runs anything. For each size of the first
    micro-batch, first with the garbage collector as it is and then without what is there already to walk through."""
    engine = recognizer._pipeline
    batches = [corpus(recordings, 256, seed) for seed in range(4)]
    options = [replace(GREEDY, blank_penalty=penalty)] * 256
    usual = engine.first_batch_frames
    for frozen in (False, True):
        if frozen:
            gc.collect()
            gc.freeze()
        for first in (usual, 16_384, 8_192, 4_096):
            engine.first_batch_frames = first
            for _ in range(3):
                for one in batches:
                    recognizer.transcribe(one, options)
            calls: list[dict[str, float]] = []
            timed = [(engine, name) for name in ("plan", "_pack", "_submit", "_read")] + [(recognizer, "_spell")]
            with timing(timed) as spent:
                for one in batches * 3:
                    spent.clear()
                    begin = time.perf_counter()
                    recognizer.transcribe(one, options)
                    calls.append({"call": time.perf_counter() - begin, **spent})
            ms = {name: round(1e3 * statistics.median(call[name] for call in calls), 2) for name in calls[0]}
            seconds = sum(sum(map(len, one)) for one in batches) / 16_000
            yield {
                "first_batch_frames": first,
                "collector_frozen": frozen,
                "rtfx": 3 * seconds / sum(call["call"] for call in calls),
                "ms": ms,
                "gpu_busy_ms": gpu_busy_ms(lambda: recognizer.transcribe(batches[0], options)),
            }
    engine.first_batch_frames = usual
    gc.unfreeze()


@contextmanager
def timing(methods: list[tuple[Any, str]]) -> Iterator[dict[str, float]]:
    """Seconds within each of `methods` of objects, by name, as long as the context lasts. A generator's are those of
    running it to its end."""
    spent: dict[str, float] = {}

    def timed(name: str, method: Any) -> Any:
        def call(*args: Any) -> Any:
            begin = time.perf_counter()
            result = method(*args)
            if isinstance(result, Iterator):
                result = iter(list(result))
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - begin
            return result

        return call

    for owner, name in methods:
        setattr(owner, name, timed(name, getattr(owner, name)))
    try:
        yield spent
    finally:
        for owner, name in methods:
            delattr(owner, name)  # the class's own is behind it


def gpu_busy_ms(work: Callable[[], object]) -> float:
    """For how long at least one kernel or copy is under way during `work`."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events() or []
        if event.device_type.name == "CUDA"
    )
    busy_us, until = 0.0, 0.0
    for start, end in spans:
        busy_us += max(0.0, end - max(start, until))
        until = max(until, end)
    return round(busy_us / 1e3, 2)


def times_ms(times: list[float]) -> list[float]:
    return [round(1e3 * value, 2) for value in times]


def flat_memory(recognizer: GpuRecognizer, penalty: float, recordings: Floats, utterances: int) -> dict[str, Any]:
    """Memory of the GPU after every tenth of so many utterances, all in batches that are new."""
    options = [replace(GREEDY, blank_penalty=penalty)] * 256
    reserved, begin, seconds = [], time.perf_counter(), 0.0
    for number in range(utterances // 256):
        some = corpus(recordings, 256, 1000 + number)
        seconds += sum(map(len, some)) / 16_000
        recognizer.transcribe(some, options)
        if number % max(1, utterances // 2560) == 0:
            reserved.append(round(torch.cuda.memory_reserved() / 2**20))
    return {
        "utterances": utterances // 256 * 256,
        "reserved_mib": reserved,
        "rtfx_with_making_the_audio": seconds / (time.perf_counter() - begin),
    }


def through_triton(
    folder: Path, penalty: float, instances: int, clients: int, concurrency: int, *, int16: bool
) -> dict[str, Any]:
    """A request an utterance over gRPC from processes of their own, so many under way each (closed loop)."""
    from moulin.bundle.checkpoint_spec import load_checkpoint_spec
    from moulin.launch.server import TritonServer
    from moulin.launch.server_options import ServerOptions
    from moulin.models.engine_choice import EngineChoice
    from moulin.triton_repo.offline_options import OfflineOptions
    from moulin.triton_repo.repository import build_offline_repository

    options = OfflineOptions(
        engine=EngineChoice(device="cuda:0"),
        instances=instances,
        max_batch=128,
        decoding=DecodingOptions(blank_penalty=penalty),
    )
    with tempfile.TemporaryDirectory() as repository:
        build_offline_repository(load_checkpoint_spec(folder, streaming=False), Path(repository), options, link=True)
        with TritonServer(Path(repository), ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as server:
            server.wait_ready()
            command = [sys.executable, __file__, "--client", server.grpc_url, "--concurrency", str(concurrency)]
            command += ["--int16"] if int16 else []
            processes = [
                subprocess.Popen([*command, "--seed", str(seed)], stdout=subprocess.PIPE, text=True)
                for seed in range(clients)
            ]
            answers = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    latencies = np.concatenate([answer["latencies"] for answer in answers])
    p50, p95, p99 = np.quantile(latencies, [0.5, 0.95, 0.99]) * 1e3
    return {
        "size": "zipformer2-66m",
        "instances": instances,
        "int16": int16,
        "clients": clients,
        "concurrency": concurrency,
        "rtfx": sum(answer["audio_sec"] for answer in answers) / CLIENT_SEC,
        "requests_per_sec": len(latencies) / CLIENT_SEC,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "failures": sum(answer["failures"] for answer in answers),
    }


CLIENT_SEC, CLIENT_WARM_UP_SEC = 10.0, 4.0


def client(url: str, concurrency: int, seed: int, *, int16: bool) -> None:
    from moulin.client import AsyncClient

    random = np.random.default_rng(seed)
    recordings = read_recordings()
    latencies: list[float] = []
    audio_sec, failures = 0.0, 0

    async def send_all() -> None:
        async with AsyncClient(url, int16=int16) as connection:
            start = time.perf_counter() + CLIENT_WARM_UP_SEC

            async def send_on() -> None:
                nonlocal audio_sec, failures
                while (sent := time.perf_counter()) < start + CLIENT_SEC:
                    (waveform,) = corpus(recordings, 1, int(random.integers(1 << 30)))
                    try:
                        await connection.transcribe(waveform)
                    except Exception:
                        failures += 1
                        continue
                    if sent > start:
                        latencies.append(time.perf_counter() - sent)
                        audio_sec += len(waveform) / 16_000

            await asyncio.gather(*(send_on() for _ in range(concurrency)))

    asyncio.run(send_all())
    print(json.dumps({"latencies": latencies, "audio_sec": audio_sec, "failures": failures}))


def read_recordings() -> Floats:
    from moulin.audio.decode import read_audio
    from moulin.evaluate.manifest import demo_clips

    whole = np.concatenate([read_audio(clip.audio) for clip in demo_clips()])
    return np.concatenate([whole, whole])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--parts", default="encoder,breakdown,zipformer2-66m,zipformer2-290m,memory,triton")
    parser.add_argument("--utterances", type=int, default=100_000, help="for the part memory")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--concurrency", type=int, default=64, help=argparse.SUPPRESS)
    parser.add_argument("--int16", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        client(arguments.client, arguments.concurrency, arguments.seed, int16=arguments.int16)
        return
    parts = arguments.parts.split(",")
    recordings = read_recordings()
    result: dict[str, Any] = {
        "kind": "gpu-engine",
        "date": time.strftime("%Y-%m-%d"),
        "command": "python scripts/benchmark-gpu.py --parts " + arguments.parts,
        "machine": machine(),
        "versions": versions(),
    }

    def add(name: str, measured: dict[str, Any]) -> None:
        result.setdefault(name, []).append(measured)
        print(name, json.dumps(measured), file=sys.stderr, flush=True)
        if arguments.to:
            arguments.to.write_text(json.dumps(result, indent=1) + "\n")

    if "encoder" in parts:
        for size in ("conformer-77m", "zipformer2-66m"):
            add("encoder", encoder_latencies(size, FRAMES))
    for size, beam in (("zipformer2-66m", 4), ("zipformer2-290m", 6)):
        if size not in parts and not (beam == 4 and {"breakdown", "memory", "triton"} & set(parts)):
            continue
        with model(size, recordings) as (recognizer, penalty, folder):
            if beam == 4 and "breakdown" in parts:
                for measured in breakdown(recognizer, penalty, recordings):
                    add("breakdown", {"size": size, **measured})
            if size in parts:
                for options in (GREEDY, replace(BEAM, beam=beam)):
                    for batch, calls in ((256, 4), (1, 60)):
                        measured = pipeline(recognizer, penalty, recordings, options, batch, calls)
                        add("pipeline", {"size": size, **measured})
            if beam == 4 and "memory" in parts:
                add("memory", flat_memory(recognizer, penalty, recordings, arguments.utterances))
            if beam == 4 and "triton" in parts:
                for instances, int16 in ((1, False), (3, False), (3, True)):
                    served = through_triton(folder, penalty, instances, clients=8, concurrency=64, int16=int16)
                    add("triton", served)


if __name__ == "__main__":
    main()
