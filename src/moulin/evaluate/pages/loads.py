"""The page of runs under a load: real-time streams, and whole recordings as requests."""

from __future__ import annotations

from collections.abc import Sequence

from moulin.evaluate.pages.blocks import Block, Fact, Facts, Paragraph, Plots, Section, Table
from moulin.evaluate.pages.figures import colours, failures, figure, filled_columns, utterance_plot
from moulin.evaluate.pages.load_plots import UNITS, counted, cpu_plot, load_plot, panels
from moulin.evaluate.pages.plots import legend
from moulin.evaluate.results.loads import LoadFigures, LoadRun, TritonFigures

REQUESTS_METHOD = (
    "A request for each recording. Latency counts from when a request was due, whether or not the generator was "
    "free to send it, to its reply. The warm-up is not measured; what failed is counted."
)
STREAMS_METHOD = (
    "Every stream speaks recordings in real time. A chunk's latency counts from when it was due to the reply that "
    "follows the encoder step it completes; final latency from the end of a recording to its whole text; first "
    "text from a recording's beginning, what is spoken until then included. The warm-up is not measured; every "
    "run has a fresh server."
)
_MAX_PANELS = 4


def load_sections(figures: LoadFigures) -> list[Section]:
    runs = figures.runs
    palette = colours(list(dict.fromkeys(run.target for run in runs)))
    keys = legend([(name, f"s{colour}") for name, colour in palette.items()])
    heaviest = max(run.load for run in runs)
    several = len({run.load for run in runs}) > 1
    errors = {
        run.target: {name: it.errors / it.times for name, it in (run.utterances or {}).items()}
        for run in runs
        if run.load == heaviest
    }
    wer = utterance_plot(errors, palette, note=f"at {counted(heaviest, runs[0].unit)}" if several else "")
    cpu = cpu_plot(runs) if figures.largest is None else []
    detailed = [run for run in runs if run.latency_distribution_ms or run.final_distribution_ms]
    of_loads = [
        plot
        for load in sorted({run.load for run in detailed}, reverse=True)[:_MAX_PANELS]
        for plot in panels([run for run in detailed if run.load == load], palette, keys)
    ]
    # In pairs, so that plots that belong together stand side by side.
    first = [load_plot(runs, palette, keys, figures.p95_limit_ms), *cpu, *of_loads] if several else [*of_loads, *cpu]
    sections = [
        Section("", [*_disturbed(runs), Facts(_facts(figures, heaviest)), Plots([*first, *wer])]),
        Section("Every run", [_latency_table(runs), _cost_table(runs), *failures(runs)]),
    ]
    if counts := [(run, run.triton) for run in runs if run.triton]:
        sections.append(Section("What Triton says of itself", [_triton_table(counts)]))
    return sections


def _facts(figures: LoadFigures, heaviest: float) -> list[Fact]:
    """The largest loads that held, or else the latency at the heaviest load."""
    if figures.largest:
        unit, limit_ms = UNITS[figures.runs[0].unit], figures.p95_limit_ms
        return [
            _fact(
                f"{most:g}",
                f"{unit}, {name}",
                f"95 % of the replies within {limit_ms:g} ms",
                disturbed=_all_disturbed([run for run in figures.runs if (run.target, run.load) == (name, most)]),
            )
            for name, most in figures.largest.items()
        ]
    return [
        _fact(
            f"{figure(run.p95_ms)} ms",
            f"p95 of {run.target}",
            f"at {counted(run.load, run.unit)}",
            disturbed=run.disturbed,
        )
        for run in figures.runs
        if run.load == heaviest
    ][:_MAX_PANELS]


def _fact(value: str, name: str, note: str, *, disturbed: bool) -> Fact:
    return Fact(value, name, f"{note}; disturbed by other processes" if disturbed else note, doubtful=disturbed)


def _all_disturbed(runs: Sequence[LoadRun]) -> bool:
    return bool(runs) and all(run.disturbed for run in runs)


def _latency_table(runs: Sequence[LoadRun]) -> Table:
    header = (
        UNITS[runs[0].unit],
        "target",
        *(f"{name}, ms" for name in ("p50", "p90", "p95", "p99", "max", "first text p50", "final p95")),
        *("failed", "WER", "CER", "revised words"),
    )
    return filled_columns(header, [_latency_row(run) for run in _by_load(runs)])


def _cost_table(runs: Sequence[LoadRun]) -> Table:
    costs = (
        "audio s/s",
        "CPU server",
        "ms for 1 s of audio",
        "CPU generator",
        "CPU others",
        "memory, MiB",
        "GPU",
        "disturbed",
    )
    return filled_columns((UNITS[runs[0].unit], "target", *costs), [_cost_row(run) for run in _by_load(runs)])


def _by_load(runs: Sequence[LoadRun]) -> list[LoadRun]:
    return sorted(runs, key=lambda run: run.load)


def _latency_row(run: LoadRun) -> tuple[str, ...]:
    latency = run.final_latency_ms if run.latency_ms.p50 is None else run.latency_ms
    return (
        f"{run.load:g}",
        run.target,
        *(figure(ms) for ms in (latency.p50, latency.p90, latency.p95, latency.p99, latency.max)),
        figure(run.first_text_ms.p50 if run.first_text_ms else None),
        figure(run.final_latency_ms.p95),
        str(run.failures),
        f"{run.wer:.2%}",
        "-" if run.cer is None else f"{run.cer:.2%}",
        "-" if run.revised_words is None else str(run.revised_words),
    )


def _cost_row(run: LoadRun) -> tuple[str, ...]:
    gpus = (f"{gpu.utilization_percent:.0f} %, {gpu.peak_memory_mib:,.0f} MiB" for gpu in run.gpus)
    return (
        f"{run.load:g}",
        run.target,
        figure(run.audio_sec_a_sec, 1),
        "-" if run.server_cpu_sec is None else f"{run.server_cpu_sec / run.seconds:.2f}",
        figure(run.cpu_ms_of_second, 1),
        f"{run.generator_cpu_sec / run.seconds:.2f}",
        "-" if run.others_cpu_sec is None else f"{run.others_cpu_sec / run.seconds:.2f}",
        figure(run.server_memory_mib) if run.server_memory_mib else "-",
        ", ".join(gpus) or "-",
        "yes" if run.disturbed else "-",
    )


def _triton_table(counts: Sequence[tuple[LoadRun, TritonFigures]]) -> Table:
    unit = UNITS[counts[0][0].unit]
    return Table(
        (unit, "target", "requests sent", "Triton's count", "failed", "mean batch", "queue, ms", "compute, ms"),
        [
            (
                f"{run.load:g}",
                run.target,
                *(str(count) for count in (run.requests_sent, triton.requests, triton.failures)),
                *(figure(mean, 2) for mean in (triton.mean_batch, triton.mean_queue_ms, triton.mean_compute_ms)),
            )
            for run, triton in counts
        ],
    )


def _disturbed(runs: Sequence[LoadRun]) -> list[Block]:
    count = sum(run.disturbed for run in runs)
    if not count:
        return []
    return [Paragraph(f"Other processes disturbed {count} of the {len(runs)} runs: they say little.", warning=True)]
