"""The page of `moulin bench encoder`."""

from __future__ import annotations

from collections.abc import Callable

from moulin.evaluate.pages.blocks import Fact, Facts, Plot, Plots, Section, Table
from moulin.evaluate.pages.figures import colours
from moulin.evaluate.pages.plots import Series, legend, line_chart
from moulin.evaluate.results.encoder import EncoderFigures, EncoderRun

METHOD = (
    "Features in the host's memory to encoder frames in the host's memory; each batch size is warmed up, and the "
    "runners take turns. Utterances a second are the batch over the median latency."
)


def encoder_sections(figures: EncoderFigures) -> list[Section]:
    runs = [run for run in figures.runs if run.failure is None]
    names = list(dict.fromkeys(run.runner for run in figures.runs))
    palette = colours(names)
    facts = [
        Fact(f"{best.qps:,.0f}", f"utterances a second, {name}", f"in batches of {best.batch}")
        for name in names
        if (best := max((run for run in runs if run.runner == name), key=lambda run: run.qps, default=None))
    ]
    keys = legend([(name, f"s{palette[name]}") for name in names])

    def plot(title: str, y_label: str, y: Callable[[EncoderRun], float]) -> Plot:
        points = {name: [(run.batch, y(run)) for run in runs if run.runner == name] for name in names}
        lines = [Series(name, its, palette[name]) for name, its in points.items() if its]
        return Plot(title, line_chart(lines, x_label="utterances in a call", y_label=y_label, log_y=True) + keys)

    plots = [
        plot("Throughput", "utterances a second", lambda run: run.qps),
        plot("Latency, median", "milliseconds a call", lambda run: run.median_ms),
    ]
    header = ("batch", "runner", "utterances a second", "median, ms", "best", "worst", "failed")
    table = Table(header, [_row(run) for run in sorted(figures.runs, key=lambda run: run.batch)])
    return [Section("", [Facts(facts), Plots(plots)]), Section("Every batch", [table])]


def _row(run: EncoderRun) -> tuple[str, ...]:
    if run.failure is not None:
        return (str(run.batch), run.runner, "-", "-", "-", "-", run.failure)
    latencies = (f"{ms:,.2f}" for ms in (run.median_ms, run.best_ms, run.worst_ms))
    return (str(run.batch), run.runner, f"{run.qps:,.1f}", *latencies, "")
