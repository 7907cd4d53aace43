"""`moulin bench capacity`: the most real-time streams that one process bears, and steps of many streams alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import typer

from moulin.cli.bench_options import AT_LEAST_1, MeasuredModel, ToOption, positive_numbers
from moulin.cli.bench_runs import finish
from moulin.cli.flags import with_flags
from moulin.cli.interrupt import STATUS
from moulin.errors import OptionsError
from moulin.options import Bounds, check_options, option

if TYPE_CHECKING:
    from moulin.engine.stream_recognizer import StreamRecognizer
    from moulin.evaluate.results.live_streams import CapacityRun, LiveStreamFigures, StepRun
    from moulin.evaluate.stream_engines import Audio

_HEADER = "streams    held     p50     p95     p99     max  step p50  mean batch  in steps  handing over"
_STEP_HEADER = "runner            streams     p50     p95  on the GPU"


@dataclass(frozen=True, slots=True)
class CapacityRuns:
    """A search for the largest number of streams, or single steps."""

    help_section: ClassVar[str] = "Runs"

    streams: str = option("16,512", "Numbers of streams to search between.", metavar="LOWEST,HIGHEST")
    p95_ms: float = option(160.0, "The latency to hold, 95th percentile.", bounds=AT_LEAST_1)
    seconds: float = option(6.0, "Length of each run, without its warm-up.", bounds=Bounds(above=0))
    budget_sec: float = option(100.0, "After so long no run begins.", bounds=AT_LEAST_1)
    steps: bool = option(False, "Measure single steps of --batches streams instead of the search.")
    plain: bool = option(False, "With --steps, steps of a checkpoint's plain modules in fp32 too, in the same run.")
    batches: str = option("1,16,64,256,512,1024", "Streams in a step, for --steps, separated by commas.")
    audio: Literal["int16", "float32"] = option("int16", "The form of the samples.")
    step_threads: int | None = option(
        None, "Threads that step streams.", usual="what suits the engine", bounds=AT_LEAST_1
    )
    max_batch: int | None = option(None, "Streams in a step at most.", usual="what suits the device", bounds=AT_LEAST_1)

    def __post_init__(self) -> None:
        check_options(self)
        if self.plain and not self.steps:
            raise OptionsError("Expected --plain with --steps", hint="--precision fp32 searches with the plain modules")

    @property
    def between(self) -> tuple[int, int]:
        """The least and the greatest number of streams of the search. Raises OptionsError."""
        numbers = positive_numbers(self.streams, "--streams", "streams")
        if len(numbers) != 2 or numbers[0] > numbers[1]:
            raise OptionsError(
                f"Expected LOWEST,HIGHEST for --streams, got {self.streams!r}", hint="for example 2000,40000"
            )
        return numbers[0], numbers[1]

    @property
    def of_steps(self) -> list[int]:
        """The numbers of streams in a step. Raises OptionsError."""
        return positive_numbers(self.batches, "--batches", "streams in a step")


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Example: moulin bench capacity --size zipformer2-causal-66m --device cuda --streams 8000,36000"
    )(capacity)


@with_flags
def capacity(measured: MeasuredModel, runs: CapacityRuns, to: ToOption = None) -> None:
    """The most real-time streams in this process, without a service, whose chunks hold a latency.

    A chunk's latency counts from when it was due to the end of its step. The number of streams is doubled until it does
    not hold, then halved to 3 %. Ctrl-C ends with what there is.
    """
    from moulin.evaluate.report_files import check_outputs
    from moulin.evaluate.results.live_streams import LiveStreamFigures
    from moulin.evaluate.stream_engines import demo_audio, open_plain, open_streams, to_float32

    check_outputs(to or [])
    slots = 2 * max(runs.of_steps) if runs.steps else runs.between[1]
    speech = demo_audio() if runs.audio == "int16" else to_float32(demo_audio())
    with measured.opened("streaming") as (spec, engine):
        figures = LiveStreamFigures(
            "capacity", engine.device, engine.threads, runs.max_batch, audio=runs.audio, slots=slots
        )
        try:
            typer.echo(f"opening {spec.name} with room for {slots} streams …", err=True)
            recognizer = open_streams(spec, engine, max_streams=slots, max_batch=runs.max_batch)
            grown = (_with_steps if runs.steps else _searched)(figures, recognizer, speech, runs)
            for with_another_run in grown:
                figures = with_another_run
            if runs.plain:
                beside = open_plain(spec, engine, max_streams=max(runs.of_steps), max_batch=runs.max_batch)
                for with_another_run in _with_steps(figures, beside, speech, runs):
                    figures = with_another_run
        except KeyboardInterrupt:
            figures = replace(figures, interrupted=True)
        if figures.capacity:
            typer.echo(f"{figures.largest} real-time streams with a p95 latency under {runs.p95_ms:g} ms")
        if figures.capacity or figures.steps:
            finish(spec, figures, to)
    if figures.interrupted:
        raise typer.Exit(STATUS)


def _searched(
    figures: LiveStreamFigures, recognizer: StreamRecognizer, speech: Audio, runs: CapacityRuns
) -> Iterator[LiveStreamFigures]:
    """`figures` extended by each run of the search."""
    from moulin.evaluate.stream_capacity import PacedStreams
    from moulin.evaluate.stream_search import Search, search_capacity

    typer.echo(_HEADER)
    streams = PacedStreams(recognizer, speech, threads=runs.step_threads)
    search = Search(*runs.between, runs.p95_ms, runs.seconds, runs.budget_sec)
    figures = replace(figures, p95_limit_ms=runs.p95_ms, largest=0)
    for run in search_capacity(streams, search, figures.device or "cpu", lambda line: typer.echo(line, err=True)):
        typer.echo(_row(run))
        most = max(figures.largest or 0, run.streams if run.held else 0)
        figures = replace(figures, capacity=[*figures.capacity, run], largest=most)
        yield figures
    streams.close()


def _with_steps(
    figures: LiveStreamFigures, recognizer: StreamRecognizer, speech: Audio, runs: CapacityRuns
) -> Iterator[LiveStreamFigures]:
    """`figures` extended by each number of streams in a step."""
    from moulin.evaluate.stream_steps import measure_steps

    typer.echo(_STEP_HEADER)
    for step in measure_steps(recognizer, speech, runs.of_steps, figures.device or "cpu"):
        typer.echo(_step_row(step))
        figures = replace(figures, steps=[*figures.steps, step])
        yield figures


def _row(run: CapacityRun) -> str:
    latency = run.chunk_latency_ms
    parts = (latency.p50, latency.p95, latency.p99, latency.max)
    shares = f"{_figure(run.mean_batch, 12)}{_figure(run.step_share, 10, 2)}{_figure(run.accept_share, 14, 2)}"
    held = "yes" if run.held else "no"
    return f"{run.streams:7}{held:>8}{''.join(_figure(ms, 8) for ms in parts)}{_figure(run.step_ms.p50, 10)}{shares}"


def _step_row(run: StepRun) -> str:
    times = f"{_figure(run.p50_ms, 8, 2)}{_figure(run.p95_ms, 8, 2)}{_figure(run.gpu_ms, 12, 2)}"
    return f"{run.runner:18}{run.batch:7}{times}"


def _figure(value: float | None, width: int, digits: int = 1) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"
