#!/usr/bin/env python3
"""Throughput of `moulin bulk` on one GPU, of a model of a published size with random weights.

    scripts/bulk-on-card.py [--device cuda:0] [--size zipformer2-66m | --model FOLDER] [--cases short,mp3,long]
                            [--seconds 240] [--engines-per-gpu 2] [--decoders N] [--precision fp16] [--cut decoders]

`short` are WAV files of 10 s, 16 bits at 16 kHz, `mp3` the same as MP3 (left out without PyAV), `long` WAV files of an
hour, a third of it silence: speech of the demo, under many names in /dev/shm. Each job is stopped after its share of
`--seconds`. Rates are of the time between two states that it prints: start-up is left out. Prints an object of JSON a
case: times real time, recordings a second, cores that the processes of each kind used and their CPU milliseconds for an
hour of audio, and the share of the time in which the GPU ran any kernel (nvidia-smi). Ends with status 1 where a
recording failed or a case came to no rate.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE / "src"))

from moulin.arrays import Floats  # noqa: E402
from moulin.audio.waveform import SAMPLE_RATE, in_16_bits  # noqa: E402
from moulin.demo.files import demo_speech  # noqa: E402
from moulin.evaluate.gpu_usage import GpuWatch  # noqa: E402
from moulin.evaluate.process_usage import cpu_sec_by_process  # noqa: E402

KINDS = {"moulin.bulk.local.decoding_process": "decoders", "moulin.bulk.local.engine_process": "engines"}
WARM_SEC = 2.0
END_SEC = 30.0


@dataclass(frozen=True)
class Case:
    """Files of one kind: `contents` different ones, each under `names` names, in a manifest of `rows`."""

    write: Callable[[Path, int], None]
    suffix: str
    contents: int
    names: int
    rows: int


@dataclass(frozen=True)
class Moment:
    """What a job had done, and the CPU seconds of its processes by kind, when it printed a state."""

    at: float
    state: dict[str, Any]
    cpu_sec: dict[str, float]


def speech(seconds: float, begin: int, silence: float = 0.0) -> Floats:
    """Speech of the demo from its `begin`th clip on; of each clip's time the share `silence` follows as faint noise."""
    clips, samples = demo_speech(), 0
    parts: list[Floats] = []
    noise = np.random.default_rng(begin).normal(0, 1e-4, 16 * SAMPLE_RATE).astype(np.float32)
    while samples < seconds * SAMPLE_RATE:
        clip = clips[(begin + len(parts)) % len(clips)]
        parts.append(np.concatenate([clip, noise[: int(len(clip) * silence / (1 - silence))]]))
        samples += len(parts[-1])
    joined: Floats = np.concatenate(parts)[: round(seconds * SAMPLE_RATE)]
    return joined


def write_wav(file: Path, samples: Floats) -> None:
    with wave.open(str(file), "wb") as written:
        written.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        written.writeframes(in_16_bits(samples).tobytes())


def write_mp3(file: Path, samples: Floats) -> None:
    import av

    with av.open(str(file), "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono", bit_rate=48_000)
        frame = av.AudioFrame.from_ndarray(in_16_bits(samples)[None], format="s16p", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


CASES = {
    "short": Case(lambda file, number: write_wav(file, speech(10, number)), "wav", 64, 400, 500_000),
    "mp3": Case(lambda file, number: write_mp3(file, speech(10, number)), "mp3", 64, 400, 500_000),
    "long": Case(lambda file, number: write_wav(file, speech(3600, number, 1 / 3)), "wav", 4, 50, 5_000),
}


def written(case: Case, folder: Path) -> Path:
    """The manifest of a case, whose files are written into `folder`. Neighbours in it are different files."""
    folder.mkdir()
    names = []
    for number in range(case.contents):
        first = folder / f"{number}.{case.suffix}"
        case.write(first, number)
        for name in range(case.names):
            (link := folder / f"{name}-{number}.{case.suffix}").hardlink_to(first)
            names.append((name, number, str(link)))
    paths = [path for _, _, path in sorted(names)]
    rows = {
        "id": [f"{row:07}" for row in range(case.rows)],
        "path": [paths[row % len(paths)] for row in range(case.rows)],
    }
    manifest = folder / "manifest.parquet"
    pyarrow.parquet.write_table(pa.table(rows), manifest)
    return manifest


def cpu_sec(pid: int) -> dict[str, float]:
    """CPU seconds so far of a job's processes, by kind."""
    used: dict[str, float] = defaultdict(float)
    for process, seconds in cpu_sec_by_process(pid).items():
        try:
            arguments = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        used[next((KINDS[one] for one in arguments if one in KINDS), "directing")] += seconds
    return dict(used)


def moments(command: list[str], measured_sec: float, until: float) -> Iterator[Moment]:
    """The states that a job prints, from WARM_SEC behind its first transcript for `measured_sec`, or up to `until`."""
    paths = os.pathsep.join([str(HERE / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    with _limited(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment), until) as job:
        assert job.stdout is not None
        begun: float | None = None
        for line in job.stdout:
            now, state = time.monotonic(), json.loads(line)
            if not state["audio_hours"]:
                continue
            begun = begun or now
            used = cpu_sec(job.pid)
            if now - begun >= WARM_SEC and "engines" in used:  # none when the job ends
                yield Moment(now, state, used)
            if now - begun >= WARM_SEC + measured_sec:
                return


@contextmanager
def _limited(job: subprocess.Popen[str], until: float) -> Iterator[subprocess.Popen[str]]:
    """`job`, which is told to end behind the block, or `until` has come: reading its output then ends."""
    timer = threading.Timer(max(until - time.monotonic(), 1), job.send_signal, [signal.SIGTERM])
    timer.daemon = True
    timer.start()
    try:
        yield job
    finally:
        timer.cancel()
        job.send_signal(signal.SIGTERM)
        try:
            job.communicate(timeout=END_SEC)
        except subprocess.TimeoutExpired:
            job.kill()
            job.communicate()


def measured(name: str, manifest: Path, model: Path, chosen: argparse.Namespace, until: float) -> dict[str, Any]:
    """The figures of a case."""
    flags = {"--device": chosen.device, "--engines-per-gpu": chosen.engines_per_gpu, "--decoders": chosen.decoders}
    flags |= {"--precision": chosen.precision, "--cut": chosen.cut if name == "long" else None}
    with tempfile.TemporaryDirectory() as to:
        command = [sys.executable, "-m", "moulin", "bulk", "run", str(manifest), "--to", to, "--model", str(model)]
        command += ["--progress", "json", *(str(one) for flag in flags.items() if flag[1] is not None for one in flag)]
        gpus = GpuWatch()
        found: list[Moment] = []
        begun = time.monotonic()
        try:
            for moment in moments(command, chosen.measured, until):
                if not found:
                    gpus.start()
                found.append(moment)
        finally:
            usage = gpus.stop() if found else []
    start_sec = (found[0].at if found else time.monotonic()) - begun
    told = {"case": name, **{flag[2:]: value for flag, value in flags.items() if value is not None}}
    if len(found) < 2:
        return {**told, "start_sec": round(start_sec, 1), "error": "no two states with transcripts"}
    first, last = found[0], found[-1]
    seconds = last.at - first.at
    hours = last.state["audio_hours"] - first.state["audio_hours"]
    used = {kind: last.cpu_sec[kind] - first.cpu_sec.get(kind, 0.0) for kind in sorted(last.cpu_sec)}
    return {
        **told,
        "times_real_time": round(hours * 3600 / seconds),
        "recordings_a_sec": round((last.state["done"] - first.state["done"]) / seconds, 1),
        "measured_sec": round(seconds, 1),
        "start_sec": round(start_sec, 1),
        "failed": last.state["failed"],
        "cores": {kind: round(value / seconds, 2) for kind, value in used.items()},
        "cpu_ms_an_hour": {kind: round(value / hours * 1000) for kind, value in used.items()} if hours else {},
        "gpus": [asdict(one.rounded()) for one in usage],
        "cores_there": len(os.sched_getaffinity(0)),
    }


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cuda:0")
    options.add_argument("--size", default="zipformer2-66m")
    options.add_argument("--model", type=Path)
    options.add_argument("--cases", default="short,mp3,long")
    options.add_argument("--seconds", type=float, default=240, help="wall time of all of it")
    options.add_argument("--engines-per-gpu", type=int)
    options.add_argument("--decoders", type=int)
    options.add_argument("--precision")
    options.add_argument("--cut")
    options.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    chosen = options.parse_args()
    until = time.monotonic() + chosen.seconds - END_SEC
    names = [name for name in chosen.cases.split(",") if name != "mp3" or find_spec("av") is not None]
    is_well = True
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="moulin-bulk-") as folder:
        model = chosen.model
        if model is None:
            from moulin.evaluate.speaking_model import write_speaking_model

            model = Path(folder, "model")
            model.mkdir()
            write_speaking_model(chosen.size, model, streaming=False, device=chosen.device.partition(",")[0])
        manifests = {name: written(CASES[name], Path(folder, name)) for name in names}
        print(f"written, {until - time.monotonic():.0f} s are left", file=sys.stderr, flush=True)
        for number, name in enumerate(names):
            share = (until - time.monotonic()) / (len(names) - number)
            chosen.measured = max(share / 2, 5.0)  # the other half is for start-up
            figures = measured(name, manifests[name], model, chosen, time.monotonic() + share)
            print(json.dumps(figures), flush=True)
            is_well = is_well and not figures.get("error") and not figures["failed"]
    return int(not is_well)


if __name__ == "__main__":
    sys.exit(main())
