"""`moulin bench offline`: throughput of whole recordings, and the latency of requests under a load."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from moulin.cli.bench_options import (
    AT_LEAST_1,
    ApiKeyOption,
    MeasuredModel,
    MeasuredOn,
    Recordings,
    StartedWith,
    ToOption,
    positive_numbers,
)
from moulin.cli.bench_runs import finish
from moulin.cli.flags import ChangesOf, with_flags
from moulin.cli.interrupt import STATUS
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.options import check_options, option

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec
    from moulin.evaluate.offline_benchmark import Rounds
    from moulin.evaluate.request_load import Arrivals, Workers
    from moulin.evaluate.results.loads import LoadFigures
    from moulin.evaluate.results.offline import OfflineFigures
    from moulin.evaluate.run import Run
    from moulin.evaluate.targets.target import ServerSettings

_BATCH_TARGETS = "moulin,moulin-triton,sherpa-onnx-batch1,sherpa-onnx-batch4,sherpa-onnx-batch16,sherpa-onnx-threads"
_REQUEST_TARGETS = "moulin-triton-grpc,sherpa-onnx"


@dataclass(frozen=True, slots=True)
class OfflineRuns:
    """Options of the runs and their targets: all recordings at once, or a request each."""

    help_section: ClassVar[str] = "Runs"

    targets: str | None = option(None, "What to measure, separated by commas; a wrong name lists them.")
    rounds: int | None = option(
        None, "Rounds through all targets.", usual="5; 1 with --workers or --rate", bounds=AT_LEAST_1
    )
    repeat: int = option(1, "How often each recording occurs in a round.", bounds=AT_LEAST_1)
    workers: str | None = option(None, "A closed loop of requests instead: so many under way at once.", metavar="N,…")
    rate: str | None = option(None, "An open loop instead: so many requests a second, at random times.", metavar="R,…")
    evenly: bool = option(False, "With --rate: at even distances, not as a Poisson process.")
    find_max: bool = option(False, "With --rate: search the highest rate that holds --p95-ms.")
    p95_ms: float = option(1000.0, "The latency to hold, 95th percentile.", bounds=AT_LEAST_1)
    seconds: float = option(20.0, "Length of each run of --workers or --rate.", bounds=AT_LEAST_1)
    generators: int = option(1, "Processes that the requests of --workers or --rate come from.", bounds=AT_LEAST_1)
    tries: int = option(3, "How often a run that other processes disturb is made, at most.", bounds=AT_LEAST_1)

    def __post_init__(self) -> None:
        check_options(self)
        if self.workers and self.rate:
            raise OptionsError("Expected --workers or --rate, got both", hint="a closed loop or an open one")
        if (self.find_max or self.evenly) and not self.rate:
            flag = "--find-max" if self.find_max else "--evenly"
            raise OptionsError(f"Expected --rate with {flag}", hint="for example --rate 4 --find-max")

    @property
    def as_requests(self) -> bool:
        return bool(self.workers or self.rate)

    @property
    def names(self) -> list[str]:
        """The names of the targets."""
        return (self.targets or (_REQUEST_TARGETS if self.as_requests else _BATCH_TARGETS)).split(",")

    def shapes(self) -> Sequence[Workers | Arrivals]:
        """The loads of --workers or --rate. Raises OptionsError."""
        from moulin.evaluate.request_load import Arrivals, Workers

        if self.workers:
            return [Workers(count) for count in positive_numbers(self.workers, "--workers", "workers")]
        try:
            return [Arrivals(float(part), poisson=not self.evenly) for part in (self.rate or "").split(",")]
        except ValueError:
            raise OptionsError(
                f"Expected requests a second separated by commas for --rate, got {self.rate!r}"
            ) from None


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench offline --model models/zipformer --data test/ --workers 1,8,64")(offline)


@with_flags
def offline(
    measured: MeasuredModel,
    on: MeasuredOn,
    runs: OfflineRuns,
    started: StartedWith,
    decoding: Annotated[dict[str, Any], ChangesOf(DecodingOptions, "the target's")],
    api_key: ApiKeyOption = "",
    to: ToOption = None,
) -> None:
    """Throughput (RTFx: audio seconds a second) and word error rate of whole recordings.

    All recordings at once, round after round, or with --workers or --rate a request each, with its latency. Ctrl-C ends
    with what there is.
    """
    from moulin.evaluate.report_files import check_outputs

    check_outputs(to or [])
    shapes = runs.shapes() if runs.as_requests else []
    recordings = on.read()
    figures: OfflineFigures | LoadFigures | None
    lines: list[dict[str, Any]] = []
    with measured.opened_for(runs.names if shapes else ["moulin"], "offline") as (spec, engine):
        settings = started.settings(engine, decoding, api_key)
        if shapes:
            figures, lines = _requests(runs, shapes, spec, settings, recordings)
        else:
            assert spec is not None
            figures = _batches(runs, spec, settings, recordings)
        if figures:
            finish(spec, figures, to, lines)
    if figures is None or figures.interrupted:
        raise typer.Exit(STATUS)


def _batches(
    runs: OfflineRuns, spec: ModelSpec, settings: ServerSettings, recordings: Recordings
) -> OfflineFigures | None:
    """Run all recordings at once; the figures so far where Ctrl-C ended it."""
    from moulin.evaluate.offline_benchmark import benchmark_offline
    from moulin.evaluate.results.offline import OfflineFigures

    measured: Rounds | None = None
    interrupted = False
    total = runs.rounds or 5
    rounds = benchmark_offline(
        spec, recordings.utterances, runs.names, settings, recordings.normalize, rounds=total, repeat=runs.repeat
    )
    try:
        with closing(rounds):
            for number, so_far in enumerate(rounds, start=1):
                measured = so_far
                typer.echo(f"round {number} of {total}", err=True)
    except KeyboardInterrupt:
        interrupted = True
    if measured is None:
        return None
    for it in measured.targets:
        spread = f"({it.rtfx_worst:.1f} to {it.rtfx_best:.1f})"
        used = it.cpu_ms_of_second(measured.audio_sec)
        cpu = "" if used is None else f"  CPU {used:5.1f} ms a second of audio"
        typer.echo(f"{it.name:20}  RTFx {it.rtfx_median:7.1f}  {spread}{cpu}  WER {it.wer:.2%}")
    return OfflineFigures(
        kind="offline",
        audio_sec=round(measured.audio_sec, 2),
        targets=measured.targets,
        data=recordings.data,
        normalizer=recordings.normalize.description,
        decoding=dict(settings.decoding),
        threads=settings.threads,
        device=settings.engine.device,
        repeat=runs.repeat,
        interrupted=interrupted,
    )


def _requests(
    wanted: OfflineRuns,
    shapes: Sequence[Workers | Arrivals],
    spec: ModelSpec | None,
    settings: ServerSettings,
    recordings: Recordings,
) -> tuple[LoadFigures | None, list[dict[str, Any]]]:
    """Run a request for each recording; the figures so far where Ctrl-C ended it, and a line for every request."""
    from moulin.cli.bench_runs import HEADER, row, run_all
    from moulin.evaluate.largest_load import find_largest, largest_that_held
    from moulin.evaluate.request_benchmark import requests_plan
    from moulin.evaluate.request_load import WARMUP_SEC, Arrivals
    from moulin.evaluate.results.loads import LoadFigures
    from moulin.evaluate.run import measure_plan
    from moulin.evaluate.streaming_clips import whole_clips
    from moulin.evaluate.targets.registry import target

    names = wanted.names
    starts = {name: target(name, "requests") for name in names}
    searching = wanted.find_max
    clips = whole_clips(recordings.utterances)

    def run(name: str, shape: Workers | Arrivals, seed: int) -> Run:
        load = f"{shape.per_sec:g} requests a second" if isinstance(shape, Arrivals) else f"{shape.count} workers"
        typer.echo(f"{name}, {load} …", err=True)
        plan = requests_plan(clips, shape, seconds=wanted.seconds, seed=seed, generators=wanted.generators)
        tries = 1 if searching else wanted.tries
        return measure_plan(name, starts[name], spec, settings, plan, recordings.normalize, tries=tries)

    typer.echo(HEADER, err=searching)
    if searching:
        first = shapes[0]
        assert isinstance(first, Arrivals)

        def at_rate(name: str, tenths: int, seed: int) -> Run:
            return run(name, Arrivals(tenths / _STEPS, first.poisson), seed)

        planned = find_largest(names, at_rate, p95_ms=wanted.p95_ms, start=max(1, round(first.per_sec * _STEPS)))
    else:
        planned = (run(name, shape, seed) for seed in range(wanted.rounds or 1) for shape in shapes for name in names)
    runs, interrupted = run_all(planned, lambda done: typer.echo(row(done.measurement), err=searching))
    largest = largest_that_held([done.measurement for done in runs], wanted.p95_ms) if searching else None
    for name, most in (largest or {}).items():
        typer.echo(f"{name:20} {most:g} requests a second with a p95 latency under {wanted.p95_ms:g} ms")
    if not runs:
        return None, []
    figures = LoadFigures(
        kind="requests",
        runs=[done.measurement.figures(brief=searching) for done in runs],
        data=recordings.data,
        normalizer=recordings.normalize.description,
        decoding=dict(settings.decoding),
        threads=settings.threads,
        device=settings.engine.device,
        generators=wanted.generators,
        warmup_sec=WARMUP_SEC,
        p95_limit_ms=wanted.p95_ms if searching else None,
        seconds=wanted.seconds,
        servers={name: settings.described(name) for name in names},
        interrupted=interrupted,
        largest=largest,
    )
    return figures, [line for done in runs for line in done.lines()]


_STEPS = 10
"""Rates are searched in tenths of a request a second."""
