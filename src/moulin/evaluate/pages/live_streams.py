"""The page of `moulin bench capacity` and `moulin bench churn`: streams in one process."""

from __future__ import annotations

from moulin.evaluate.pages.blocks import Block, Fact, Facts, Paragraph, Plot, Plots, Section, Table
from moulin.evaluate.pages.figures import figure, table_of
from moulin.evaluate.pages.plots import Series, line_chart
from moulin.evaluate.results.live_streams import ChurnRun, LiveStreamFigures

CAPACITY_METHOD = (
    "Streams in this process without a service. A chunk's latency counts from when it was due to the end of its step; "
    "a number of streams holds when 95 % of the chunks stay under the limit, over the run and over its last quarter. "
    "A step is from samples in host memory to text there."
)
CHURN_METHOD = (
    "Streams in this process that start, stop, vanish and lag at random, as fast as they go. Samples are heard again "
    "by another recognizer, which is given all of the audio at once."
)


def live_stream_sections(figures: LiveStreamFigures) -> list[Section]:
    sections = _capacity(figures)
    if figures.steps:
        sections.append(Section("Steps", [table_of(figures.steps)]))
    sections += [section for run in figures.churn for section in _churn(run)]
    return sections


def _capacity(figures: LiveStreamFigures) -> list[Section]:
    runs = sorted(figures.capacity, key=lambda run: run.streams)
    if not runs:
        return []
    blocks: list[Block] = []
    if figures.largest is not None and figures.p95_limit_ms is not None:
        note = f"95 % of the chunks within {figures.p95_limit_ms:g} ms"
        blocks.append(Facts([Fact(f"{figures.largest:,}", "real-time streams", note)]))
    if not figures.complete:
        blocks.append(Paragraph("The search ended before its time was enough: more may hold.", warning=True))
    points = [(float(run.streams), run.chunk_latency_ms.p95) for run in runs]
    line = Series("p95", [(streams, p95) for streams, p95 in points if p95 is not None], 0)
    limit = (figures.p95_limit_ms, f"limit {figures.p95_limit_ms:g} ms") if figures.p95_limit_ms else None
    chart = line_chart([line], x_label="streams", y_label="p95 latency, ms", log_y=True, limit=limit)
    blocks.append(Plots([Plot("Latency against load", chart)]))
    header = (
        *("streams", "held", "p50, ms", "p95, ms", "p99, ms", "step p50, ms", "mean batch"),
        *("in steps", "handing over", "GPU busy, %"),
    )
    rows = [
        (
            f"{run.streams:,}",
            "yes" if run.held else "no",
            *(figure(ms) for ms in (run.chunk_latency_ms.p50, run.chunk_latency_ms.p95, run.chunk_latency_ms.p99)),
            figure(run.step_ms.p50, 1),
            *(figure(value, digits) for value, digits in ((run.mean_batch, 1), (run.step_share, 2))),
            figure(run.accept_share, 2),
            ", ".join(f"{gpu.utilization_percent:.0f}" for gpu in run.gpus) or "-",
        )
        for run in runs
    ]
    return [Section("", blocks), Section("Every run", [Table(header, rows)])]


def _churn(run: ChurnRun) -> list[Section]:
    facts = [
        Fact(f"{len(run.faults)}", "faults", f"of {run.streams:,} streams, {run.open_at_once:,} at once"),
        Fact(f"{run.sample_errors.rate:.2%}", "of characters differ", f"in {run.samples} streams heard again"),
        Fact(figure(run.streams_a_sec), "streams a second"),
    ]
    blocks: list[Block] = [Facts(facts), *(Paragraph(fault, warning=True) for fault in run.faults)]
    memory = [(str(number), *map(figure, quarter.values())) for number, quarter in enumerate(run.quarters_mib, start=1)]
    if memory and run.quarters_mib[0]:
        blocks.append(Table(("quarter", *(f"{name}, MiB" for name in run.quarters_mib[0])), memory))
    return [Section("Streams that come and go", blocks)]
