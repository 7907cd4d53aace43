"""`moulin bench churn`: streams that start, stop, vanish and lag at random, and what goes wrong then."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import typer

from moulin.cli.bench_options import AT_LEAST_1, MeasuredModel, ToOption
from moulin.cli.bench_runs import finish
from moulin.cli.flags import with_flags
from moulin.cli.interrupt import STATUS
from moulin.cli.messages import echo
from moulin.options import Bounds, check_options, option


@dataclass(frozen=True, slots=True)
class ChurnOptions:
    """Options of the streams, and the share of their text that may differ."""

    help_section: ClassVar[str] = "Runs"

    streams: int = option(1000, "How many streams in all.", bounds=Bounds(at_least=4))
    open_at_once: int = option(64, "How many of them beside each other.", flag="--open", bounds=AT_LEAST_1)
    longest_sec: float = option(5.0, "They have any length up to this.", bounds=Bounds(above=0))
    max_differing: float | None = option(
        None,
        "Share of characters that may differ.",
        usual="0; 0.03 in half precision",
        bounds=Bounds(at_least=0, at_most=1),
    )
    seed: int = option(0, "Decides what is random.")
    max_batch: int | None = option(None, "Streams in a step at most.", usual="what suits the device", bounds=AT_LEAST_1)

    def __post_init__(self) -> None:
        check_options(self)


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench churn --size zipformer2-causal-66m --device cuda --streams 100000")(churn)


@with_flags
def churn(measured: MeasuredModel, wanted: ChurnOptions, to: ToOption = None) -> None:
    """Streams that start, stop, vanish and lag at random, as fast as they go, with all options that streams have.

    Some are heard again in fp32 by another recognizer, which is given all audio at once. The exit status is 1 where a
    slot is lost, memory grows, updates do not add up to the text, or more characters differ than --max-differing.
    Ctrl-C ends with what there is.
    """
    from moulin.evaluate.report_files import check_outputs
    from moulin.evaluate.results.live_streams import LiveStreamFigures
    from moulin.evaluate.stream_churn import run_churn
    from moulin.evaluate.stream_crowd import Churn
    from moulin.evaluate.stream_engines import demo_audio, memory_in_use, open_plain, open_streams

    check_outputs(to or [])
    streams, slots = wanted.streams, wanted.open_at_once
    one_sampled_in = max(1, min(200, streams // 50))
    with measured.opened("streaming") as (spec, engine):
        typer.echo(f"opening {spec.name} with room for {slots} streams …", err=True)
        exact = 0.0 if engine.precision == "fp32" else 0.03
        report = run_churn(
            open_streams(spec, engine, max_streams=slots, max_batch=wanted.max_batch),
            open_plain(spec, engine),
            demo_audio(),
            Churn(streams, slots, wanted.longest_sec, one_sampled_in=one_sampled_in, seed=wanted.seed),
            memory=partial(memory_in_use, engine.device),
            max_differing=exact if wanted.max_differing is None else wanted.max_differing,
            on_quarter=lambda number: typer.echo(f"{number} of 4 quarters of the streams have gone", err=True),
        )
        run = report.figures()
        typer.echo(
            f"{run.ended + run.vanished} streams in {run.seconds:.1f} s, {run.vanished} of them vanished; "
            f"{run.steps} steps of {run.chunks / max(1, run.steps):.1f} streams"
        )
        rate = run.sample_errors.rate
        typer.echo(f"{run.samples} heard again: {run.samples_differing} differ, in {rate:.2%} of the characters")
        for fault in run.faults:
            echo(fault, err=True, fg=typer.colors.RED)
        figures = LiveStreamFigures(
            "churn",
            engine.device,
            engine.threads,
            wanted.max_batch,
            slots=slots,
            churn=[run],
            interrupted=report.interrupted,
        )
        finish(spec, figures, to)
    if report.interrupted:
        raise typer.Exit(STATUS)
    if run.faults:
        raise typer.Exit(1)
