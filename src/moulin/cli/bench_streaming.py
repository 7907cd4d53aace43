"""`moulin bench streaming`: the latency of real-time streams, and how many of them a machine bears."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moulin.cli.arguments import DeviceOption, PrecisionOption
from moulin.errors import OptionsError

if TYPE_CHECKING:
    from moulin.evaluate.streaming_benchmark import Measurement

_DEFAULT_TARGETS = "moulin-triton-http,sherpa-onnx-server"
_SAMPLES_A_MS = 16


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench streaming --model models/zipformer-streaming --streams 16,32,64")(
        streaming
    )


def streaming(
    model: Annotated[Path, typer.Option(help="The streaming model's folder.")],
    data: Annotated[
        Path | None, typer.Option(help="JSONL with audio and text.  [default: the demo recordings]")
    ] = None,
    targets: Annotated[str, typer.Option(help="What to measure, separated by commas.")] = _DEFAULT_TARGETS,
    streams: Annotated[str, typer.Option(help="How many at once, separated by commas.")] = "48",
    find_max: Annotated[
        bool, typer.Option("--find-max", help="Search the largest number that holds --p95-ms, from --streams on.")
    ] = False,
    p95_ms: Annotated[float, typer.Option(min=1, help="The latency to hold, 95th percentile.")] = 320.0,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each run, without its warm-up.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each number of streams (without --find-max).")] = 1,
    chunk_ms: Annotated[int, typer.Option(min=10, help="Audio sent at a time.")] = 320,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of moulin.  [default: all]")] = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = None,
    sherpa_options: Annotated[
        str, typer.Option(help="Options of sherpa-onnx's server: max-batch-size=8,num-work-threads=2,…")
    ] = "",
    to: Annotated[Path | None, typer.Option(help="Write the raw figures into this JSON file.")] = None,
) -> None:
    """Latency of real-time streams, from when a chunk of speech is due to its reply, and word error rate.

    Every run has a fresh server, the targets take turns, and a run that other processes disturb is made again. Words
    are compared in upper case; OH counts as ZERO. Ctrl-C ends with what there is.
    """
    import os

    from moulin.bundle.load import load_bundle
    from moulin.demo.files import DEMO_MANIFEST
    from moulin.evaluate.largest_load import find_largest, largest_that_held
    from moulin.evaluate.manifest import read_manifest
    from moulin.evaluate.report import write_report
    from moulin.evaluate.streaming_benchmark import WARMUP_SEC, Pace, measure
    from moulin.evaluate.streaming_clips import read_clips
    from moulin.evaluate.streaming_targets import ServerSettings, target
    from moulin.evaluate.wer import digits_spelled_alike

    names, counts = targets.split(","), _counts(streams)
    for name in names:
        target(name)
    settings = ServerSettings(threads or len(os.sched_getaffinity(0)), device, _settings(sherpa_options))
    spec = load_bundle(model, precision=precision, expect="streaming")
    assert spec.streaming is not None
    chunk_samples = chunk_ms * _SAMPLES_A_MS
    clips = read_clips(read_manifest(data or DEMO_MANIFEST), spec.streaming, chunk_samples)

    def run(name: str, count: int, seed: int) -> Measurement:
        typer.echo(f"{name}, {count} streams …", err=True)
        measurement = measure(
            name, spec, settings, clips, count, Pace(chunk_samples, seconds, seed), digits_spelled_alike
        )
        # The runs of a search are its progress; those that were asked for are the result.
        typer.echo(_row(measurement), err=find_max)
        return measurement

    typer.echo(_HEADER, err=find_max)
    if find_max:
        planned = find_largest(names, run, p95_ms=p95_ms, start=counts[0])
    else:
        planned = (run(name, count, seed) for seed in range(rounds) for count in counts for name in names)
    runs: list[Measurement] = []
    interrupted = False
    try:
        for measurement in planned:
            runs.append(measurement)  # noqa: PERF402 (what there is must outlive an interruption)
    except KeyboardInterrupt:
        interrupted = True
    largest = largest_that_held(runs, p95_ms) if find_max else {}
    for name, count in largest.items():
        typer.echo(f"{name:20} {count:5} streams with a p95 latency under {p95_ms:g} ms")
    if to is not None and runs:
        figures = {
            "threads": settings.threads,
            "device": device,
            "chunk_ms": chunk_ms,
            "warmup_sec": WARMUP_SEC,
            "servers": {name: settings.described(name) for name in names},
            "interrupted": interrupted,
            "runs": [measurement.to_dict() for measurement in runs],
        }
        if find_max:
            figures |= {"p95_limit_ms": p95_ms, "largest": largest}
        write_report(to, sys.argv[1:], spec, figures)
    if interrupted:
        raise typer.Exit(130)


_HEADER = (
    f"{'target':20} streams     p50     p95     p99     max  final p95  failed     WER  cores: server generator others"
)


def _row(run: Measurement) -> str:
    latencies = "".join(f"{run.latency_ms[percent]:8.1f}" for percent in (50, 95, 99, 100))
    cores = "".join(
        f"{seconds / run.seconds:{width}.2f}"
        for seconds, width in ((run.server_cpu_sec, 15), (run.generator_cpu_sec, 10), (run.others_cpu_sec, 7))
    )
    rate = f"{run.word_errors.rate:8.2%}"
    return (
        f"{run.target:20} {run.streams:7}{latencies}{run.final_ms[95]:11.1f}{len(run.failures):8}{rate}{cores}"
        f"{'  disturbed' if run.disturbed else ''}"
    )


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise OptionsError(f"Expected numbers of streams separated by commas for --streams, got {text!r}")
    return counts


def _settings(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    if not all(name and value for name, _, value in pairs):
        raise OptionsError(f"Expected NAME=VALUE separated by commas for --sherpa-options, got {text!r}")
    return {name.removeprefix("--"): value for name, _, value in pairs}
