"""Plots of runs under a load: latency against load, its distribution and course, CPU time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from moulin.evaluate.pages.blocks import Plot
from moulin.evaluate.pages.figures import MAX_ROWS
from moulin.evaluate.pages.plots import Row, Series, bar_chart, legend, line_chart
from moulin.evaluate.results.loads import LoadRun, Unit

UNITS: Mapping[Unit, str] = {"streams": "streams", "workers": "workers", "requests_per_sec": "requests a second"}


def counted(load: float, unit: Unit) -> str:
    """A load with its unit: `48 streams`."""
    name = UNITS[unit]
    return f"1 {name.removesuffix('s')}" if load == 1 and " " not in name else f"{load:g} {name}"


def load_plot(runs: Sequence[LoadRun], palette: Mapping[str, int], keys: str, limit_ms: float | None) -> Plot:
    """A plot of p95 against load, the median of several runs. For a closed loop the load is the throughput."""
    unit = runs[0].unit
    closed = unit == "workers"
    series = []
    for name, colour in palette.items():
        by_load: dict[float, list[tuple[float, float]]] = {}
        for run in runs:
            if run.target == name and run.p95_ms is not None:
                load = run.audio_sec_a_sec or 0.0 if closed else run.load
                by_load.setdefault(run.load, []).append((load, run.p95_ms))
        points = [tuple(map(median, zip(*found, strict=True))) for _, found in sorted(by_load.items())]
        labels = [f"{load:g}" for load in sorted(by_load)] if closed else []
        series.append(Series(name, [(x, y) for x, y in points], colour, labels=labels))
    limit = (limit_ms, f"limit {limit_ms:g} ms") if limit_ms else None
    x_label = "throughput, audio seconds a second" if closed else UNITS[unit]
    chart = line_chart(series, x_label=x_label, y_label="p95 latency, ms", log_y=True, limit=limit)
    repeated = len({(run.target, run.load) for run in runs}) < len(runs)
    title = f"Latency against throughput, by {UNITS[unit]}" if closed else "Latency against load"
    return Plot(f"{title}{' (median of the runs)' if repeated else ''}", chart + keys)


def cpu_plot(runs: Sequence[LoadRun]) -> list[Plot]:
    """Plots of cores in use, for runs whose server is on this machine."""
    kinds = (("server", "s0"), ("load generator", "s1"), ("others", "other"))
    rows = []
    for run in runs:
        if run.server_cpu_sec is not None:
            used = (run.server_cpu_sec, run.generator_cpu_sec, run.others_cpu_sec or 0.0)
            parts = [(name, sec / run.seconds, css) for (name, css), sec in zip(kinds, used, strict=True)]
            rows.append(Row(f"{run.target}, {run.load:g}", parts, f"{run.server_cpu_sec / run.seconds:.2f}"))
    if not rows:
        return []
    chart = bar_chart(rows[:MAX_ROWS], x_label="cores; the number is the server's") + legend(kinds)
    return [Plot("CPU cores in use", chart)]


def panels(runs: Sequence[LoadRun], palette: Mapping[str, int], keys: str) -> list[Plot]:
    """Plots of the distribution and the course of latency, at the one load of `runs`."""
    about = counted(runs[0].load, runs[0].unit)
    cut = max(_distribution(run)[99] for run in runs)
    curves = [
        Series(
            run.target,
            [(ms, percent) for percent, ms in enumerate(_distribution(run)) if ms <= cut],
            palette[run.target],
            dots=False,
        )
        for run in runs
    ]
    chart = line_chart(curves, x_label="latency, ms (up to p99)", y_label="% of replies", y_range=(0, 100))
    plots = [Plot(f"How latency is distributed, {about}", chart + keys)]
    timed = [run for run in runs if len(run.timeline_ms) > 1]
    if timed:
        lines = [
            Series(
                f"{run.target}, p{percent}",
                [(row[0], row[column]) for row in run.timeline_ms],
                palette[run.target],
                percent == 50,
                dots=False,
            )
            for run in timed
            for percent, column in ((50, 1), (95, 2))
        ]
        chart = line_chart(lines, x_label="second of the run", y_label="latency, ms", log_y=True)
        plots.append(Plot(f"Latency over time (dashed: median, solid: p95), {about}", chart + keys))
    return plots


def _distribution(run: LoadRun) -> Sequence[float]:
    return run.latency_distribution_ms or run.final_distribution_ms
