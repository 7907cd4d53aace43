"""`moulin bench streaming`: the latency of real-time streams, and how many of them a machine bears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from moulin.cli.bench_options import (
    AT_LEAST_1,
    ApiKeyOption,
    MeasuredModel,
    MeasuredOn,
    StartedWith,
    ToOption,
    positive_numbers,
)
from moulin.cli.bench_runs import finish
from moulin.cli.flags import ChangesOf, with_flags
from moulin.cli.interrupt import STATUS
from moulin.decoding.options import DecodingOptions
from moulin.options import Bounds, check_options, option

if TYPE_CHECKING:
    from moulin.evaluate.run import Run

_SAMPLES_A_MS = 16


@dataclass(frozen=True, slots=True)
class StreamRuns:
    """Options of the runs and their targets."""

    help_section: ClassVar[str] = "Runs"

    targets: str = option(
        "moulin-triton-http,sherpa-onnx-server", "What to measure, separated by commas; a wrong name lists them."
    )
    streams: str = option("48", "How many at once, separated by commas.")
    find_max: bool = option(False, "Search the largest number that holds --p95-ms, from --streams on.")
    p95_ms: float = option(320.0, "The latency to hold, 95th percentile.", bounds=AT_LEAST_1)
    seconds: float = option(20.0, "Length of each run, without its warm-up.", bounds=AT_LEAST_1)
    rounds: int = option(1, "Runs of each number of streams (without --find-max).", bounds=AT_LEAST_1)
    chunk_ms: int = option(320, "Audio sent at a time.", bounds=Bounds(at_least=10))
    jitter_ms: float = option(0.0, "Chunks come up to so much late, at random.", bounds=Bounds(at_least=0))
    generators: int = option(1, "Processes that the streams are shared among.", bounds=AT_LEAST_1)
    tries: int = option(3, "How often a run that other processes disturb is made, at most.", bounds=AT_LEAST_1)

    def __post_init__(self) -> None:
        check_options(self)


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench streaming --model models/zipformer-streaming --streams 16,32,64")(
        streaming
    )


@with_flags
def streaming(
    measured: MeasuredModel,
    on: MeasuredOn,
    runs: StreamRuns,
    started: StartedWith,
    decoding: Annotated[dict[str, Any], ChangesOf(DecodingOptions, "the target's")],
    api_key: ApiKeyOption = "",
    to: ToOption = None,
) -> None:
    """Latency of real-time streams, from when a chunk of speech is due to its reply, and word error rate.

    Every run has a fresh server, the targets take turns, and a run that other processes disturb is made again. Ctrl-C
    ends with what there is.
    """
    from moulin.cli.bench_runs import HEADER, row, run_all
    from moulin.evaluate.largest_load import find_largest, largest_that_held
    from moulin.evaluate.report_files import check_outputs
    from moulin.evaluate.results.loads import LoadFigures
    from moulin.evaluate.run import measure_plan
    from moulin.evaluate.streaming_benchmark import streams_plan
    from moulin.evaluate.streaming_clips import read_clips
    from moulin.evaluate.streaming_load import WARMUP_SEC, Pace
    from moulin.evaluate.targets.registry import target

    check_outputs(to or [])
    names, counts = runs.targets.split(","), positive_numbers(runs.streams, "--streams", "streams")
    starts = {name: target(name, "streams") for name in names}
    recordings = on.read()
    with measured.opened_for(names, "streaming") as (spec, engine):
        settings = started.settings(engine, decoding, api_key)
        chunk_samples = runs.chunk_ms * _SAMPLES_A_MS
        clips = read_clips(recordings.utterances, spec.streaming if spec else None, chunk_samples)

        def run(name: str, count: int, seed: int) -> Run:
            typer.echo(f"{name}, {count} streams …", err=True)
            pace = Pace(chunk_samples, runs.seconds, seed, jitter_sec=runs.jitter_ms / 1000)
            plan = streams_plan(clips, count, pace, runs.generators)
            tries = 1 if runs.find_max else runs.tries
            return measure_plan(name, starts[name], spec, settings, plan, recordings.normalize, tries=tries)

        # Runs of a search are progress, on standard error; runs of given loads are the result.
        typer.echo(HEADER, err=runs.find_max)
        if runs.find_max:
            planned = find_largest(names, run, p95_ms=runs.p95_ms, start=counts[0])
        else:
            planned = (run(name, count, seed) for seed in range(runs.rounds) for count in counts for name in names)
        done, interrupted = run_all(planned, lambda one: typer.echo(row(one.measurement), err=runs.find_max))
        largest = largest_that_held([one.measurement for one in done], runs.p95_ms) if runs.find_max else None
        for name, most in (largest or {}).items():
            typer.echo(f"{name:20} {most:5g} streams with a p95 latency under {runs.p95_ms:g} ms")
        if done:
            figures = LoadFigures(
                kind="streaming",
                runs=[one.measurement.figures(brief=runs.find_max) for one in done],
                data=recordings.data,
                normalizer=recordings.normalize.description,
                decoding=decoding,
                threads=settings.threads,
                device=engine.device,
                chunk_ms=runs.chunk_ms,
                jitter_ms=runs.jitter_ms,
                generators=runs.generators,
                warmup_sec=WARMUP_SEC,
                p95_limit_ms=runs.p95_ms if runs.find_max else None,
                servers={name: settings.described(name) for name in names},
                interrupted=interrupted,
                largest=largest,
            )
            finish(spec, figures, to, (line for one in done for line in one.lines()))
    if interrupted:
        raise typer.Exit(STATUS)
