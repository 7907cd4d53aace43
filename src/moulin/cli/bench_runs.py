"""Runs of the benchmarks: their lines on the terminal, their end by Ctrl-C, and their result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec
    from moulin.evaluate.measurement import Measurement
    from moulin.evaluate.report import Figures
    from moulin.evaluate.run import Run

HEADER = (
    f"{'target':20}    load     p50     p95     p99     max  final p95  failed     WER  cores: server generator others"
)


def row(run: Measurement) -> str:
    latencies = "".join(f"{run.latency.percentile(percent):8.1f}" for percent in (50, 95, 99, 100))
    server = "n/a" if run.usage.server_cpu_sec is None else f"{run.usage.server_cpu_sec / run.seconds:.2f}"
    cores = f"{server:>15}{run.generator_cpu_sec / run.seconds:10.2f}{run.others_cpu_sec / run.seconds:7.2f}"
    return (
        f"{run.target:20} {run.load:7g}{latencies}{run.final.percentile(95):11.1f}{len(run.failures):8}"
        f"{run.word_errors.rate:8.2%}{cores}{'  disturbed' if run.disturbed else ''}"
    )


def finish(
    spec: ModelSpec | None, figures: Figures, to: Sequence[Path] | None, lines: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Write this command's result into the files `to`, and print the line for scripts. `lines` are for `.jsonl`."""
    from moulin.evaluate.report import make_report
    from moulin.evaluate.report_files import write
    from moulin.evaluate.results.summary import summary_line

    if to:
        write(make_report(sys.argv[1:], spec, figures), to, lines)
    typer.echo(summary_line(figures))


def run_all(planned: Iterable[Run], on_run: Callable[[Run], None]) -> tuple[list[Run], bool]:
    """The finished runs, and whether Ctrl-C ended them."""
    runs: list[Run] = []
    try:
        for run in planned:
            runs.append(run)
            on_run(run)
    except KeyboardInterrupt:
        return runs, True
    return runs, False
