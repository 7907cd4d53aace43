"""`moulin bench churn`: streams that start, stop, vanish and lag at random, and what goes wrong then."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from moulin.cli.arguments import DeviceOption, EngineOption, PrecisionOption
from moulin.cli.bench_options import SizeOption, ThreadsOption, ToOption, measured_model
from moulin.cli.interrupt import STATUS


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench churn --size zipformer2-causal-66m --device cuda --streams 100000")(churn)


def churn(
    model: Annotated[Path | None, typer.Option(help="The streaming model's folder.  [default: the demo model]")] = None,
    size: SizeOption = None,
    streams: Annotated[int, typer.Option(min=4, help="How many streams in all.")] = 1000,
    open_at_once: Annotated[int, typer.Option("--open", min=1, help="How many of them beside each other.")] = 64,
    longest_sec: Annotated[float, typer.Option(min=0.1, help="They have any length up to this.")] = 5.0,
    max_differing: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of characters that may differ.  [default: 0; 0.03 in half precision]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides what is random.")] = 0,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Streams in a step at most.  [default: what suits the device]")
    ] = None,
    threads: ThreadsOption = None,
    engine: EngineOption = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = None,
    to: ToOption = None,
) -> None:
    """Streams that start, stop, vanish and lag at random, as fast as they go, with all options that streams have.

    Some are heard again in fp32 by another recognizer, which is given all audio at once. The exit status is 1 where a
    slot is lost, memory grows, updates do not add up to the text, or more characters differ than --max-differing.
    Ctrl-C ends with what there is.
    """
    from functools import partial

    from moulin.evaluate.report import check_outputs, make_report, write
    from moulin.evaluate.results.live_streams import LiveStreamFigures
    from moulin.evaluate.stream_churn import run_churn
    from moulin.evaluate.stream_crowd import Churn
    from moulin.evaluate.stream_engines import demo_audio, memory_in_use, open_plain, open_streams

    check_outputs(to or [])
    one_sampled_in = max(1, min(200, streams // 50))
    wanted = Churn(streams, open_at_once, longest_sec, one_sampled_in=one_sampled_in, seed=seed)
    with measured_model(model, size, precision, engine, device, "streaming") as spec:
        typer.echo(f"opening {spec.name} with room for {open_at_once} streams …", err=True)
        recognizer = open_streams(
            spec, engine=engine, device=device, threads=threads, max_streams=open_at_once, max_batch=max_batch
        )
        exact = spec.precision == "fp32" and engine != "tensorrt"
        report = run_churn(
            recognizer,
            open_plain(spec, device=device, threads=threads),
            demo_audio(),
            wanted,
            memory=partial(memory_in_use, device),
            max_differing=(0.0 if exact else 0.03) if max_differing is None else max_differing,
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
            typer.secho(fault, err=True, fg=typer.colors.RED)
        if to:
            figures = LiveStreamFigures(
                kind="churn",
                device=device,
                threads=threads,
                max_batch=max_batch,
                slots=open_at_once,
                churn=[run],
                interrupted=report.interrupted,
            )
            write(make_report(sys.argv[1:], spec, figures), to)
    if report.interrupted:
        raise typer.Exit(STATUS)
    if run.faults:
        raise typer.Exit(1)
