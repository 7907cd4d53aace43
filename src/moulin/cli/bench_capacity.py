"""`moulin bench capacity`: the most real-time streams that one process bears, and steps of many streams alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moulin.cli.arguments import DeviceOption, EngineOption, PrecisionOption
from moulin.cli.bench_options import SizeOption, ThreadsOption, ToOption, measured_model, positive_numbers
from moulin.cli.interrupt import STATUS
from moulin.errors import OptionsError

if TYPE_CHECKING:
    from moulin.evaluate.results.live_streams import CapacityRun, StepRun

_STEPS = "1,16,64,256,512,1024"
_HEADER = "streams    held     p50     p95     p99     max  step p50  mean batch  in steps  handing over"
_STEP_HEADER = "runner        streams     p50     p95  on the GPU"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Example: moulin bench capacity --size zipformer2-causal-66m --device cuda --streams 8000,36000"
    )(capacity)


def capacity(
    model: Annotated[Path | None, typer.Option(help="The streaming model's folder.  [default: the demo model]")] = None,
    size: SizeOption = None,
    streams: Annotated[
        str, typer.Option(metavar="LOWEST,HIGHEST", help="Numbers of streams to search between.")
    ] = "16,512",
    p95_ms: Annotated[float, typer.Option(min=1, help="The latency to hold, 95th percentile.")] = 160.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each run, without its warm-up.")] = 6.0,
    budget_sec: Annotated[float, typer.Option(min=1, help="After so long no run begins.")] = 100.0,
    steps: Annotated[
        bool, typer.Option("--steps", help="Measure single steps of --batches streams instead of the search.")
    ] = False,
    batches: Annotated[str, typer.Option(help="Streams in a step, for --steps, separated by commas.")] = _STEPS,
    audio: Annotated[Literal["int16", "float32"], typer.Option(help="The form of the samples.")] = "int16",
    step_threads: Annotated[
        int | None, typer.Option(min=1, help="Threads that step streams.  [default: what suits the engine]")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Streams in a step at most.  [default: what suits the device]")
    ] = None,
    threads: ThreadsOption = None,
    engine: EngineOption = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = None,
    to: ToOption = None,
) -> None:
    """The most real-time streams in this process, without a service, whose chunks hold a latency.

    A chunk's latency counts from when it was due to the end of its step. The number of streams is doubled until it does
    not hold, then halved to 3 %. Ctrl-C ends with what there is.
    """
    from moulin.evaluate.report import check_outputs, make_report, write
    from moulin.evaluate.results.live_streams import LiveStreamFigures
    from moulin.evaluate.stream_capacity import PacedStreams
    from moulin.evaluate.stream_engines import demo_audio, open_streams, to_float32
    from moulin.evaluate.stream_search import Search, search_capacity
    from moulin.evaluate.stream_steps import measure_steps

    check_outputs(to or [])
    lowest, highest = _range(streams)
    counts = positive_numbers(batches, "--batches", "streams in a step")
    slots = 2 * max(counts) if steps else highest
    measured_steps: list[StepRun] = []
    runs: list[CapacityRun] = []
    interrupted = False
    with measured_model(model, size, precision, engine, device, "streaming") as spec:
        typer.echo(f"opening {spec.name} with room for {slots} streams …", err=True)
        try:
            recognizer = open_streams(
                spec, engine=engine, device=device, threads=threads, max_streams=slots, max_batch=max_batch
            )
            speech = demo_audio() if audio == "int16" else to_float32(demo_audio())
            if steps:
                typer.echo(_STEP_HEADER)
                for step in measure_steps(recognizer, speech, counts, device, name=f"{spec.family} {spec.precision}"):
                    measured_steps.append(step)
                    typer.echo(_step_row(step))
            else:
                typer.echo(_HEADER)
                paced = PacedStreams(recognizer, speech, threads=step_threads)
                search = Search(lowest, highest, p95_ms, seconds, budget_sec)
                for run in search_capacity(paced, search, device, lambda line: typer.echo(line, err=True)):
                    runs.append(run)
                    typer.echo(_row(run))
                paced.close()
        except KeyboardInterrupt:
            interrupted = True
        most = max((run.streams for run in runs if run.held), default=0)
        if runs:
            typer.echo(f"{most} real-time streams with a p95 latency under {p95_ms:g} ms")
        if to and (runs or measured_steps):
            figures = LiveStreamFigures(
                kind="capacity",
                device=device,
                threads=threads,
                max_batch=max_batch,
                p95_limit_ms=None if steps else p95_ms,
                audio=audio,
                slots=slots,
                steps=measured_steps,
                capacity=runs,
                largest=most if runs else None,
                interrupted=interrupted,
            )
            write(make_report(sys.argv[1:], spec, figures), to)
    if interrupted:
        raise typer.Exit(STATUS)


def _range(text: str) -> tuple[int, int]:
    numbers = positive_numbers(text, "--streams", "streams")
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise OptionsError(f"Expected LOWEST,HIGHEST for --streams, got {text!r}", hint="for example 2000,40000")
    return numbers[0], numbers[1]


def _row(run: CapacityRun) -> str:
    latency = run.chunk_latency_ms
    parts = (latency.p50, latency.p95, latency.p99, latency.max)
    shares = f"{_figure(run.mean_batch, 12)}{_figure(run.step_share, 10, 2)}{_figure(run.accept_share, 14, 2)}"
    held = "yes" if run.held else "no"
    return f"{run.streams:7}{held:>8}{''.join(_figure(ms, 8) for ms in parts)}{_figure(run.step_ms.p50, 10)}{shares}"


def _step_row(run: StepRun) -> str:
    times = f"{_figure(run.p50_ms, 8, 2)}{_figure(run.p95_ms, 8, 2)}{_figure(run.gpu_ms, 12, 2)}"
    return f"{run.runner:14}{run.batch:7}{times}"


def _figure(value: float | None, width: int, digits: int = 1) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"
