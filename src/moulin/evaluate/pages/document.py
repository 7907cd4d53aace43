"""What a report says, in the order in which one reads it: the same for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from moulin.evaluate.pages.plots import (
    NUM_COLOURS,
    Row,
    Series,
    bar_chart,
    grouped_bars,
    legend,
    line_chart,
    strip_chart,
)
from moulin.evaluate.wer import Pair, align_words

_MAX_ROWS = 30
_MAX_PANELS = 4


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure that is worth a big number."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    facts: Sequence[Fact]


@dataclass(frozen=True, slots=True)
class Table:
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Plot:
    """HTML with an SVG; the tables say the same."""

    title: str
    html: str


@dataclass(frozen=True, slots=True)
class Plots:
    plots: Sequence[Plot]


@dataclass(frozen=True, slots=True)
class Alignment:
    title: str
    pairs: Sequence[Pair]


@dataclass(frozen=True, slots=True)
class Code:
    text: str


Block = Paragraph | Facts | Table | Plots | Alignment | Code


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    subtitle: str
    sections: Sequence[Section]


def document(report: Mapping[str, Any]) -> Document:
    """The document of a report that any of the benchmarks wrote."""
    kind = report_kind(report)
    sections = {"accuracy": _accuracy, "offline": _offline, "encoder": _encoder}.get(kind, _loads)(report)
    titles = {
        "accuracy": "Accuracy",
        "offline": "Offline throughput",
        "requests": "Requests under load",
        "streaming": "Real-time streams",
        "encoder": "Encoders alone",
    }
    model = report.get("model")
    about = [f"{model['name']} ({model['family']}, {model['precision']})" if model else "", _data(report)]
    warnings: list[Block] = []
    if report.get("interrupted"):
        warnings.append(Paragraph("Interrupted: this is what there was until then.", warning=True))
    if warnings:
        sections = [Section("", warnings), *sections]
    subtitle = ", ".join(part for part in (*about, _machine(report), report["date"]) if part)
    return Document(titles[kind], subtitle, [*sections, _setup(report, kind)])


def report_kind(report: Mapping[str, Any]) -> str:
    """accuracy, offline, requests, streaming or encoder; not every report says it."""
    if "kind" in report:
        return str(report["kind"])
    if "targets" in report:
        return "offline"
    return "encoder" if "runner" in report["runs"][0] else "streaming"


def load_unit(run: Mapping[str, Any]) -> str:
    """What a run's load is counted in."""
    return next(unit for unit in ("streams", "workers", "requests_per_sec") if unit in run)


_UNITS = {"streams": "streams", "workers": "workers", "requests_per_sec": "requests a second"}


def _accuracy(report: Mapping[str, Any]) -> list[Section]:
    results = report["accuracy"]
    colours = _colours([result["target"] for result in results])
    facts = [
        Fact(
            f"{result['wer']['rate']:.2%}",
            result["target"],
            f"{result['wer']['errors']} errors in {result['wer']['reference']} words",
        )
        for result in results
    ]
    kinds = (("substitutions", "s0"), ("deletions", "s1"), ("insertions", "s2"))
    bars = [
        Row(
            result["target"],
            [(kind, 100 * result["wer"][kind] / max(1, result["wer"]["reference"]), css) for kind, css in kinds],
            f"{result['wer']['rate']:.2%}",
        )
        for result in results
    ]
    plots = [Plot("Errors by kind, % of the words", bar_chart(bars, x_label="% of the words") + legend(kinds))]
    by_utterance = {
        result["target"]: {it["id"]: it["errors"] for it in result["utterances"] if it["failure"] is None}
        for result in results
    }
    plots += _utterance_plot(by_utterance, colours)
    table = Table(
        ("target", "WER", "errors", "ins", "del", "sub", "words", "CER", "recordings with errors", "failed", "RTFx"),
        [
            (
                result["target"],
                f"{result['wer']['rate']:.2%}",
                *(
                    str(result["wer"][kind])
                    for kind in ("errors", "insertions", "deletions", "substitutions", "reference")
                ),
                f"{result['cer']['rate']:.2%}",
                f"{result['sentence_errors']} of {result['recordings'] - result['failures']}",
                str(result["failures"]),
                _figure(result["rtfx"], 1),
            )
            for result in results
        ],
    )
    sections = [Section("", [Facts(facts)]), Section("Word errors", [Plots(plots), table, *_failures(results)])]
    for result in results:
        wrong = sorted((it for it in result["utterances"] if it["errors"]), key=lambda it: -it["errors"])
        shown: list[Block] = [
            Alignment(
                f"{it['id']}: {it['errors']} of {it['words']}", align_words(it["said"], it["heard"], normalize=str)
            )
            for it in wrong[:_MAX_ROWS]
        ]
        if len(wrong) > _MAX_ROWS:
            shown.append(Paragraph(f"… and {len(wrong) - _MAX_ROWS} more with fewer errors."))
        if shown:
            sections.append(Section(f"What {result['target']} got wrong", shown))
    return sections


def _offline(report: Mapping[str, Any]) -> list[Section]:
    targets = report["targets"]
    colours = _colours([target["name"] for target in targets])
    best = max(targets, key=lambda target: target["rtfx_median"])
    facts = [Fact(f"{best['rtfx_median']:,.0f}×", "real time", f"{best['name']}, median round")]
    peers = [target for target in targets if target["name"].startswith("sherpa")]
    ours = [target for target in targets if target["name"].startswith("moulin")]
    if peers and ours:
        peer, our = (max(group, key=lambda it: it["rtfx_median"]) for group in (peers, ours))
        ratio = our["rtfx_median"] / peer["rtfx_median"]
        facts.append(
            Fact(f"{ratio:.2f}", f"{our['name']} against {peer['name']}", "the fastest of each, in the same run")
        )
    rows = [
        Row(
            target["name"],
            [
                (f"round {number}", report["audio_sec"] / seconds, f"s{colours[target['name']]}")
                for number, seconds in enumerate(target["seconds"], start=1)
            ],
            f"{target['rtfx_median']:,.0f}",
        )
        for target in targets
    ]
    plots = [
        Plot(
            "Throughput: a dot for each round, a bar to the median",
            strip_chart(rows, x_label="audio seconds a second (RTFx)"),
        )
    ]
    by_utterance = {
        target["name"]: {name: it["errors"] for name, it in target.get("utterances", {}).items()} for target in targets
    }
    plots += _utterance_plot(by_utterance, colours)
    table = Table(
        ("target", "RTFx, median", "worst", "best", "WER", "errors", "words"),
        [
            (
                target["name"],
                *(f"{target[key]:,.1f}" for key in ("rtfx_median", "rtfx_worst", "rtfx_best")),
                f"{target['wer']:.2%}",
                str(target["word_errors"]),
                str(target["words"]),
            )
            for target in targets
        ],
    )
    return [Section("", [Facts(facts)]), Section("Throughput", [Plots(plots), table])]


def _encoder(report: Mapping[str, Any]) -> list[Section]:
    runs = [run for run in report["runs"] if "failure" not in run]
    names = list(dict.fromkeys(run["runner"] for run in report["runs"]))
    colours = _colours(names)
    facts = [
        Fact(f"{best['qps']:,.0f}", f"utterances a second, {name}", f"in batches of {best['batch']}")
        for name in names
        if (best := max((run for run in runs if run["runner"] == name), key=lambda run: run["qps"], default=None))
    ]
    keys = legend([(name, f"s{colours[name]}") for name in names])

    def lines(key: str) -> list[Series]:
        found = {name: [(run["batch"], run[key]) for run in runs if run["runner"] == name] for name in names}
        return [Series(name, points, colours[name]) for name, points in found.items() if points]

    plots = [
        Plot(title, line_chart(lines(key), x_label="utterances in a call", y_label=label, log_y=True) + keys)
        for title, key, label in (
            ("Throughput", "qps", "utterances a second"),
            ("Latency, median", "median_ms", "milliseconds a call"),
        )
    ]
    rows = [
        (str(run["batch"]), run["runner"], "-", "-", "-", "-", run["failure"])
        if "failure" in run
        else (
            str(run["batch"]),
            run["runner"],
            f"{run['qps']:,.1f}",
            *(f"{run[key]:,.2f}" for key in ("median_ms", "best_ms", "worst_ms")),
            "",
        )
        for run in sorted(report["runs"], key=lambda run: run["batch"])
    ]
    table = Table(("batch", "runner", "utterances a second", "median, ms", "best", "worst", "failed"), rows)
    return [Section("", [Facts(facts), Plots(plots)]), Section("Every batch", [table])]


def _loads(report: Mapping[str, Any]) -> list[Section]:
    runs = report["runs"]
    unit = load_unit(runs[0])
    names = list(dict.fromkeys(run["target"] for run in runs))
    colours = _colours(names)
    keys = legend([(name, f"s{colours[name]}") for name in names])
    limit_ms = report.get("p95_limit_ms")
    blocks: list[Block] = []
    facts = [
        Fact(f"{most:g}", f"{_UNITS[unit]}, {name}", f"95 % of the replies within {limit_ms:g} ms")
        for name, most in report.get("largest", {}).items()
    ]
    if not facts:
        heaviest = max(run[unit] for run in runs)
        facts = [
            Fact(f"{_figure(_p(run, 95))} ms", f"p95 of {run['target']}", f"at {_counted(run[unit], unit)}")
            for run in runs
            if run[unit] == heaviest
        ][:_MAX_PANELS]
    blocks.append(Facts(facts))
    searched = "largest" in report
    several = len({run[unit] for run in runs}) > 1
    heaviest = max(run[unit] for run in runs)
    by_utterance = {
        run["target"]: {name: it["errors"] / it["times"] for name, it in run.get("utterances", {}).items()}
        for run in runs
        if run[unit] == heaviest
    }
    wer = _utterance_plot(by_utterance, colours, note=f"at {_counted(heaviest, unit)}" if several else "")
    cpu = [] if searched else _cpu_plot(runs, unit)
    panels = []
    detailed = [run for run in runs if run.get("latency_distribution_ms") or run.get("final_distribution_ms")]
    for load in sorted({run[unit] for run in detailed}, reverse=True)[:_MAX_PANELS]:
        here = [run for run in detailed if run[unit] == load]
        panels += _panels(here, _counted(load, unit), colours, keys)
    # In pairs, so that what belongs together stands side by side.
    plots = [_load_plot(runs, unit, colours, keys, limit_ms), *cpu, *panels, *wer] if several else [*panels, *cpu, *wer]
    blocks.append(Plots(plots))
    sections = [
        Section("", blocks),
        Section("Every run", [_runs_table(runs, unit), *_failures(runs), *_disturbed(runs)]),
    ]
    triton = [run for run in runs if run.get("triton")]
    if triton:
        sections.append(Section("What Triton says of itself", [_triton_table(triton, unit)]))
    return sections


def _load_plot(
    runs: Sequence[Mapping[str, Any]], unit: str, colours: Mapping[str, int], keys: str, limit_ms: float | None
) -> Plot:
    """p95 against load, the median where there are several runs of one. Of a closed loop the load is what came out."""
    closed = unit == "workers"
    series = []
    for name, colour in colours.items():
        by_load: dict[float, list[tuple[float, float]]] = {}
        for run in runs:
            if run["target"] == name and (p95_ms := _p(run, 95)) is not None:
                by_load.setdefault(run[unit], []).append((run["audio_sec_a_sec"] if closed else run[unit], p95_ms))
        points = [tuple(map(median, zip(*found, strict=True))) for _, found in sorted(by_load.items())]
        series.append(Series(name, [(x, y) for x, y in points], colour))
    limit = (limit_ms, f"limit {limit_ms:g} ms") if limit_ms else None
    x_label = "throughput, audio seconds a second" if closed else _UNITS[unit]
    chart = line_chart(series, x_label=x_label, y_label="p95 latency, ms", log_y=True, limit=limit)
    repeated = len({(run["target"], run[unit]) for run in runs}) < len(runs)
    title = f"Latency against throughput: {_loads_listed(runs, unit)}" if closed else "Latency against load"
    return Plot(f"{title}{' (median of the runs)' if repeated else ''}", chart + keys)


def _loads_listed(runs: Sequence[Mapping[str, Any]], unit: str) -> str:
    return f"{', '.join(f'{load:g}' for load in sorted({run[unit] for run in runs}))} {_UNITS[unit]}"


def _cpu_plot(runs: Sequence[Mapping[str, Any]], unit: str) -> list[Plot]:
    known = [run for run in runs if run.get("server_cpu_sec") is not None][:_MAX_ROWS]
    if not known:
        return []
    kinds = (("server", "s0"), ("load generator", "s1"), ("others", "other"))
    fields = ("server_cpu_sec", "generator_cpu_sec", "others_cpu_sec")
    rows = [
        Row(
            f"{run['target']}, {run[unit]:g}",
            [(name, run[field] / run["seconds"], css) for (name, css), field in zip(kinds, fields, strict=True)],
            f"{run['server_cpu_sec'] / run['seconds']:.2f}",
        )
        for run in known
    ]
    chart = bar_chart(rows, x_label="cores; the number is the server's") + legend(kinds)
    return [Plot("CPU cores in use", chart)]


def _panels(runs: Sequence[Mapping[str, Any]], about: str, colours: Mapping[str, int], keys: str) -> list[Plot]:
    """How latency is distributed, and how it went over time, at one load."""
    plots = []
    curves = [
        Series(
            run["target"],
            [(ms, percent) for percent, ms in enumerate(_distribution(run))],
            colours[run["target"]],
            dots=False,
        )
        for run in runs
    ]
    cut = max(_distribution(run)[99] for run in runs)
    curves = [
        Series(it.name, [(ms, percent) for ms, percent in it.points if ms <= cut], it.colour, dots=False)
        for it in curves
    ]
    chart = line_chart(curves, x_label="latency, ms (up to p99)", y_label="% of replies", y_range=(0, 100))
    plots.append(Plot(f"How latency is distributed, {about}", chart + keys))
    timed = [run for run in runs if len(run.get("timeline_ms", [])) > 1]
    if timed:
        lines = [
            Series(
                f"{run['target']}, p{percent}",
                [(row[0], row[column]) for row in run["timeline_ms"]],
                colours[run["target"]],
                percent == 50,
                dots=False,
            )
            for run in timed
            for percent, column in ((50, 1), (95, 2))
        ]
        chart = line_chart(lines, x_label="second of the run", y_label="latency, ms", log_y=True)
        plots.append(Plot(f"Latency over time (dashed: median, solid: p95), {about}", chart + keys))
    return plots


def _distribution(run: Mapping[str, Any]) -> Sequence[float]:
    found: Sequence[float] = run["latency_distribution_ms"] or run["final_distribution_ms"]
    return found


def _utterance_plot(
    errors: Mapping[str, Mapping[str, float]], colours: Mapping[str, int], note: str = ""
) -> list[Plot]:
    """Errors by recording, of those that have any: the worst first."""
    names = sorted({name for them in errors.values() for name, count in them.items() if count})
    if not names:
        return []
    worst = sorted(names, key=lambda name: -sum(them.get(name, 0) for them in errors.values()))
    groups = [
        (
            _short(name),
            [Row(target, [(target, them.get(name, 0.0), f"s{colours[target]}")]) for target, them in errors.items()],
        )
        for name in worst[:_MAX_ROWS]
    ]
    total = len({name for them in errors.values() for name in them})
    title = f"Word errors by recording{f', {note}' if note else ''}: {len(names)} of {total} have any"
    keys = legend([(target, f"s{colours[target]}") for target in errors])
    return [Plot(title, grouped_bars(groups, x_label="word errors") + keys)]


def _runs_table(runs: Sequence[Mapping[str, Any]], unit: str) -> Table:
    header = (
        *(
            _UNITS[unit],
            "target",
            "p50, ms",
            "p90, ms",
            "p95, ms",
            "p99, ms",
            "max, ms",
            "first text p50, ms",
            "final p95, ms",
            "failed",
        ),
        *("WER", "CER", "revised words", "audio s/s", "CPU server", "CPU generator", "memory, MiB", "GPU"),
    )
    rows = []
    for run in sorted(runs, key=lambda run: run[unit]):
        latency = run["latency_ms"] if run["latency_ms"]["p50"] is not None else run["final_latency_ms"]
        seconds = run["seconds"]
        gpus = run.get("gpus", [])
        rows.append(
            (
                f"{run[unit]:g}",
                run["target"],
                *(_figure(latency[key]) for key in ("p50", "p90", "p95", "p99", "max")),
                _figure(run.get("first_text_ms", {}).get("p50")),
                _figure(run["final_latency_ms"]["p95"]),
                str(run["failures"]),
                f"{run['wer']:.2%}",
                f"{run['cer']:.2%}" if "cer" in run else "-",
                str(run.get("revised_words", "-")),
                _figure(run.get("audio_sec_a_sec"), 1),
                "-" if run["server_cpu_sec"] is None else f"{run['server_cpu_sec'] / seconds:.2f}",
                f"{run['generator_cpu_sec'] / seconds:.2f}",
                _figure(run.get("server_memory_mib")) if run.get("server_memory_mib") else "-",
                ", ".join(f"{gpu['utilization_percent']:.0f} %, {gpu['peak_memory_mib']:,.0f} MiB" for gpu in gpus)
                or "-",
            )
        )
    return Table(header, rows)


def _triton_table(runs: Sequence[Mapping[str, Any]], unit: str) -> Table:
    return Table(
        (_UNITS[unit], "target", "requests sent", "Triton's count", "failed", "mean batch", "queue, ms", "compute, ms"),
        [
            (
                f"{run[unit]:g}",
                run["target"],
                str(run["requests_sent"]),
                str(run["triton"]["requests"]),
                str(run["triton"]["failures"]),
                *(_figure(run["triton"][key], 2) for key in ("mean_batch", "mean_queue_ms", "mean_compute_ms")),
            )
            for run in runs
        ],
    )


def _failures(runs: Sequence[Mapping[str, Any]]) -> list[Block]:
    return [
        Paragraph(
            f"{run['target']}: {run['failures']} failed, for example: {'; '.join(run['failure_examples'])}",
            warning=True,
        )
        for run in runs
        if run["failures"]
    ]


def _disturbed(runs: Sequence[Mapping[str, Any]]) -> list[Block]:
    count = sum(bool(run.get("disturbed")) for run in runs)
    if not count:
        return []
    return [Paragraph(f"Other processes disturbed {count} of the {len(runs)} runs: they say little.", warning=True)]


def _setup(report: Mapping[str, Any], kind: str) -> Section:
    machine = report["machine"]
    rows = [("machine", _machine(report)), ("system", f"{machine['os']}, {machine['memory_gib']} GiB")]
    if report.get("model"):
        model = report["model"]
        rows.append(("model", f"{model['name']}, {model['family']}, {model['precision']}"))
    rows += [("data", _data(report)), ("texts compared as", str(report.get("normalizer", "")))]
    rows += [
        (name.replace("_", " "), str(report[name]))
        for name in (
            "threads",
            "device",
            "frames",
            "chunk_ms",
            "jitter_ms",
            "generators",
            "warmup_sec",
            "repeat",
            "p95_limit_ms",
        )
        if report.get(name)
    ]
    rows += [
        (f"settings of {name}", ", ".join(f"{key}={value}" for key, value in settings.items()))
        for name, settings in report.get("servers", {}).items()
    ]
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())))
    return Section(
        "How it was measured",
        [Paragraph(_METHOD[kind]), Code(report["command"]), Table(("", ""), [row for row in rows if row[1]])],
    )


_SETTINGS = [
    "threads",
    "device",
    "frames",
    "chunk_ms",
    "jitter_ms",
    "generators",
    "warmup_sec",
    "repeat",
    "p95_limit_ms",
]

_METHOD = {
    "accuracy": (
        "Every recording once. Errors are those of the alignment with the fewest; rates are pooled over all words or "
        "characters of the references. What failed is not in them."
    ),
    "offline": (
        "All recordings in one call, from waveforms in memory to texts, after one whole pass that is not measured; the "
        "targets take turns, round after round."
    ),
    "encoder": (
        "Features in the host's memory to encoder frames in the host's memory; each batch size is warmed up, and the "
        "runners take turns. Utterances a second are the batch over the median latency."
    ),
    "requests": (
        "A request for each recording. Latency counts from when a request was due, whether or not the generator was "
        "free to send it, to its reply. The warm-up is not measured; what failed is counted."
    ),
    "streaming": (
        "Every stream speaks recordings in real time. A chunk's latency counts from when it was due to the reply that "
        "follows the encoder step it completes; final latency from the end of a recording to its whole text; first "
        "text from a recording's beginning, what is spoken until then included. The warm-up is not measured; every "
        "run has a fresh server."
    ),
}


def _machine(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    return ", ".join(str(part) for part in (machine.get("gpu"), machine["cpu"], f"{machine['cores']} cores") if part)


def _data(report: Mapping[str, Any]) -> str:
    data = report.get("data")
    return f"{data['name']} ({data['recordings']})" if data else ""


def _colours(names: Sequence[str]) -> dict[str, int]:
    return {name: number % NUM_COLOURS for number, name in enumerate(names)}


def _counted(load: float, unit: str) -> str:
    name = _UNITS[unit]
    return f"1 {name.removesuffix('s')}" if load == 1 and " " not in name else f"{load:g} {name}"


def _p(run: Mapping[str, Any], percent: int) -> float | None:
    """Of chunks, or of whole recordings where a target answers no chunks."""
    value: float | None = run["latency_ms"][f"p{percent}"]
    return run["final_latency_ms"][f"p{percent}"] if value is None else value


def _gpu(gpu: Mapping[str, Any]) -> str:
    return f"{gpu['utilization_percent']:.0f} %, {gpu['peak_memory_mib']:,.0f} MiB"


def _figure(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
