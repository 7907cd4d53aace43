"""`moulin bench streaming`: the latency of real-time streams, and how many of them a machine bears."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moulin.cli.arguments import BeamOption, DeviceOption, EngineOption, MethodOption, PrecisionOption, decoding_changes
from moulin.cli.bench_options import (
    AlikeOption,
    ApiKeyOption,
    DataOption,
    NormalizerOption,
    SherpaOption,
    TextOption,
    ThreadsOption,
    ToOption,
    TriesOption,
    all_cpus,
    load_measured_model,
    positive_numbers,
    read_recordings,
    sherpa_settings,
)

if TYPE_CHECKING:
    from moulin.evaluate.run import Run

_DEFAULT_TARGETS = "moulin-triton-http,sherpa-onnx-server"
_SAMPLES_A_MS = 16


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench streaming --model models/zipformer-streaming --streams 16,32,64")(
        streaming
    )


def streaming(
    model: Annotated[Path | None, typer.Option(help="The streaming model's folder.  [default: the demo model]")] = None,
    data: DataOption = None,
    text: TextOption = None,
    targets: Annotated[
        str, typer.Option(help="What to measure, separated by commas; a wrong name lists them.")
    ] = _DEFAULT_TARGETS,
    streams: Annotated[str, typer.Option(help="How many at once, separated by commas.")] = "48",
    find_max: Annotated[
        bool, typer.Option("--find-max", help="Search the largest number that holds --p95-ms, from --streams on.")
    ] = False,
    p95_ms: Annotated[float, typer.Option(min=1, help="The latency to hold, 95th percentile.")] = 320.0,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each run, without its warm-up.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each number of streams (without --find-max).")] = 1,
    chunk_ms: Annotated[int, typer.Option(min=10, help="Audio sent at a time.")] = 320,
    jitter_ms: Annotated[float, typer.Option(min=0, help="Chunks come up to so much late, at random.")] = 0.0,
    generators: Annotated[int, typer.Option(min=1, help="Processes that the streams are shared among.")] = 1,
    method: MethodOption = None,
    beam: BeamOption = None,
    normalizer: NormalizerOption = "basic",
    alike: AlikeOption = None,
    threads: ThreadsOption = None,
    engine: EngineOption = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = None,
    tries: TriesOption = 3,
    sherpa_options: SherpaOption = "",
    api_key: ApiKeyOption = "",
    to: ToOption = None,
) -> None:
    """Latency of real-time streams, from when a chunk of speech is due to its reply, and word error rate.

    Every run has a fresh server, the targets take turns, and a run that other processes disturb is made again. Ctrl-C
    ends with what there is.
    """
    from moulin.cli.bench_runs import HEADER, row, run_all
    from moulin.demo.files import DEMO_STREAMING_MODEL
    from moulin.evaluate.largest_load import find_largest, largest_that_held
    from moulin.evaluate.report import check_outputs, make_report, write
    from moulin.evaluate.results.loads import LoadFigures
    from moulin.evaluate.run import measure_plan
    from moulin.evaluate.streaming_benchmark import streams_plan
    from moulin.evaluate.streaming_clips import read_clips
    from moulin.evaluate.streaming_load import WARMUP_SEC, Pace
    from moulin.evaluate.targets.registry import target
    from moulin.evaluate.targets.target import ServerSettings

    check_outputs(to or [])
    names, counts = targets.split(","), positive_numbers(streams, "--streams", "streams")
    starts = {name: target(name, "streams") for name in names}
    settings = ServerSettings(
        all_cpus(threads), device, engine, sherpa_settings(sherpa_options), decoding_changes(method, beam), api_key
    )
    at_addresses = all("=" in name for name in names)
    spec = (
        None
        if at_addresses and model is None
        else load_measured_model(model or DEMO_STREAMING_MODEL, precision, engine, device, "streaming")
    )
    chunk_samples = chunk_ms * _SAMPLES_A_MS
    recordings = read_recordings(data, text, normalizer, alike)
    clips = read_clips(recordings.utterances, spec.streaming if spec else None, chunk_samples)

    def run(name: str, count: int, seed: int) -> Run:
        typer.echo(f"{name}, {count} streams …", err=True)
        pace = Pace(chunk_samples, seconds, seed, jitter_sec=jitter_ms / 1000)
        plan = streams_plan(clips, count, pace, generators)
        tried = 1 if find_max else tries
        return measure_plan(name, starts[name], spec, settings, plan, recordings.normalize, tries=tried)

    # The runs of a search are its progress; those that were asked for are the result.
    typer.echo(HEADER, err=find_max)
    if find_max:
        planned = find_largest(names, run, p95_ms=p95_ms, start=counts[0])
    else:
        planned = (run(name, count, seed) for seed in range(rounds) for count in counts for name in names)
    runs, interrupted = run_all(planned, lambda done: typer.echo(row(done.measurement), err=find_max))
    largest = largest_that_held([done.measurement for done in runs], p95_ms) if find_max else {}
    for name, most in largest.items():
        typer.echo(f"{name:20} {most:5g} streams with a p95 latency under {p95_ms:g} ms")
    if to and runs:
        figures = LoadFigures(
            kind="streaming",
            runs=[done.measurement.figures(brief=find_max) for done in runs],
            data=recordings.data,
            normalizer=recordings.normalize.description,
            decoding=dict(settings.decoding),
            threads=settings.threads,
            device=device,
            chunk_ms=chunk_ms,
            jitter_ms=jitter_ms,
            generators=generators,
            warmup_sec=WARMUP_SEC,
            p95_limit_ms=p95_ms if find_max else None,
            servers={name: settings.described(name) for name in names},
            interrupted=interrupted,
            largest=largest if find_max else None,
        )
        write(make_report(sys.argv[1:], spec, figures), to, (line for done in runs for line in done.lines()))
    if interrupted:
        raise typer.Exit(130)
