#!/usr/bin/env python3
"""Throughput of `moulin bulk` beside that of the recognizer in one process, on the CPU.

    scripts/bulk-speed.py [--model FOLDER] [--minutes 10] [--rounds 3]

The files are the demo's clips as WAV, 16 bits at 16 kHz. Both read them all and transcribe them; the recognizer gets as
many at a time as `moulin bulk` gives it. Each runs once with a tenth of the files and once with all, by turns, and the
difference counts: so start-up is left out. Prints a line a round: wall and CPU seconds for an hour of audio, and the
ratio of bulk to the recognizer.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import soundfile

from moulin.audio.decode import read_audio
from moulin.bulk.run import CORE_SEC
from moulin.demo.files import DEMO_MODEL, demo_speech
from moulin.models.open_recognizer import open_recognizer

MOULIN = Path(sys.executable).with_name("moulin")


def write_files(folder: Path, minutes: float) -> list[str]:
    clips, seconds = demo_speech(), 0.0
    files: list[str] = []
    while seconds < minutes * 60:
        clip = clips[len(files) % len(clips)]
        file = folder / f"{len(files):06}.wav"
        soundfile.write(file, clip, 16000, "PCM_16")
        files.append(str(file))
        seconds += len(clip) / 16000
    return files


def in_this_process(model: Path, files: list[str]) -> None:
    at_once = CORE_SEC * len(os.sched_getaffinity(0)) * 16000
    with open_recognizer(model) as recognizer:
        waiting, samples = [], 0
        for file in files:
            waiting.append(read_audio(Path(file)))
            samples += len(waiting[-1])
            if samples >= at_once or file is files[-1]:
                recognizer.transcribe(waiting)
                waiting, samples = [], 0


def by_bulk(model: Path, files: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "files.txt")
        listed.write_text("\n".join(files))
        command = [MOULIN, "bulk", listed, "--to", Path(folder, "to"), "--model", model, "--progress", "none"]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)


def spent(work: Callable[[Path, list[str]], None], model: Path, files: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of `work` in a process of its own."""
    process = os.fork()
    if not process:
        work(model, files)
        os._exit(0)
    begun = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, status = os.waitpid(process, 0)
    if status:
        raise SystemExit(f"{work.__name__} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begun, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, default=DEMO_MODEL)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), chosen.minutes)
        few = files[: len(files) // 10]
        hours = chosen.minutes / 60 * (1 - len(few) / len(files))
        for number in range(chosen.rounds):
            found = []
            for work in (in_this_process, by_bulk):
                short, long = spent(work, chosen.model, few), spent(work, chosen.model, files)
                found.append([(one - other) / hours for one, other in zip(long, short, strict=True)])
            ratios.append([bulk / alone for alone, bulk in zip(*found, strict=True)])
            (wall, cpu), (bulk_wall, bulk_cpu) = found
            print(
                f"round {number}: alone {wall:.1f} s, {cpu:.1f} s of CPU; bulk {bulk_wall:.1f} s, {bulk_cpu:.1f} s; "
                f"ratios {ratios[-1][0]:.3f}, {ratios[-1][1]:.3f}",
                flush=True,
            )
    wall, cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"bulk takes {wall:.3f} of the wall time and {cpu:.3f} of the CPU time")


if __name__ == "__main__":
    main()
