"""A report as a document: the page of its kind of benchmark, and how it was measured."""

from __future__ import annotations

from collections.abc import Sequence

from moulin.evaluate.pages.accuracy import METHOD as ACCURACY
from moulin.evaluate.pages.accuracy import accuracy_sections
from moulin.evaluate.pages.blocks import Code, Document, Paragraph, Section, Table
from moulin.evaluate.pages.encoder import METHOD as ENCODER
from moulin.evaluate.pages.encoder import encoder_sections
from moulin.evaluate.pages.gpu_engine import METHOD as GPU_ENGINE
from moulin.evaluate.pages.gpu_engine import gpu_engine_sections
from moulin.evaluate.pages.leaderboard import METHOD as LEADERBOARD
from moulin.evaluate.pages.leaderboard import leaderboard_sections
from moulin.evaluate.pages.live_streams import CAPACITY_METHOD, CHURN_METHOD, live_stream_sections
from moulin.evaluate.pages.loads import REQUESTS_METHOD, STREAMS_METHOD, load_sections
from moulin.evaluate.pages.offline import METHOD as OFFLINE
from moulin.evaluate.pages.offline import offline_sections
from moulin.evaluate.report import Figures, Header, Report
from moulin.evaluate.results.accuracy import AccuracyFigures
from moulin.evaluate.results.encoder import EncoderFigures
from moulin.evaluate.results.gpu_engine import GpuEngineFigures
from moulin.evaluate.results.leaderboard import LeaderboardFigures
from moulin.evaluate.results.live_streams import LiveStreamFigures
from moulin.evaluate.results.loads import LoadFigures
from moulin.evaluate.results.offline import OfflineFigures
from moulin.evaluate.results.setup import settings

_KINDS = {
    "accuracy": ("Accuracy", ACCURACY),
    "offline": ("Offline throughput", OFFLINE),
    "requests": ("Requests under load", REQUESTS_METHOD),
    "streaming": ("Real-time streams", STREAMS_METHOD),
    "encoder": ("Encoders alone", ENCODER),
    "gpu-engine": ("The offline GPU engine", GPU_ENGINE),
    "leaderboard": ("The Open ASR Leaderboard's sets", LEADERBOARD),
    "capacity": ("Streams in one process", CAPACITY_METHOD),
    "churn": ("Streams that come and go", CHURN_METHOD),
    "gpu-streaming": ("Streams on a GPU", CAPACITY_METHOD),
}
"""Title and method of each kind of benchmark."""


def document(report: Report) -> Document:
    """The document of a report that any of the benchmarks wrote."""
    header, figures = report.header, report.figures
    sections = _sections(figures)
    if figures.interrupted:
        interrupted = Paragraph("Interrupted: this is what there was until then.", warning=True)
        sections = [Section("", [interrupted]), *sections]
    model = f"{header.model.name} ({header.model.family}, {header.model.precision})" if header.model else ""
    about = (model, _data(figures), _machine(header), header.date)
    title, _ = _KINDS[figures.kind]
    return Document(title, ", ".join(part for part in about if part), [*sections, _setup(report)])


def _sections(figures: Figures) -> Sequence[Section]:
    match figures:
        case AccuracyFigures():
            return accuracy_sections(figures)
        case OfflineFigures():
            return offline_sections(figures)
        case LoadFigures():
            return load_sections(figures)
        case EncoderFigures():
            return encoder_sections(figures)
        case GpuEngineFigures():
            return gpu_engine_sections(figures)
        case LeaderboardFigures():
            return leaderboard_sections(figures)
        case LiveStreamFigures():
            return live_stream_sections(figures)


def _setup(report: Report) -> Section:
    header, figures = report.header, report.figures
    machine, model = header.machine, header.model
    rows = [
        ("machine", _machine(header)),
        ("system", f"{machine['os']}, {machine['memory_gib']} GiB"),
        ("model", f"{model.name}, {model.family}, {model.precision}" if model else ""),
        ("data", _data(figures)),
        ("texts compared as", getattr(figures, "normalizer", None) or ""),
        *((name.replace("_", " "), str(value)) for name, value in settings(figures)),
    ]
    if isinstance(figures, LoadFigures):
        rows += [
            (f"settings of {name}", ", ".join(f"{key}={value}" for key, value in its.items()))
            for name, its in (figures.servers or {}).items()
        ]
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in header.versions.items())))
    _, method = _KINDS[figures.kind]
    shown = [row for row in rows if row[1]]
    return Section("How it was measured", [Paragraph(method), Code(header.command), Table(("", ""), shown)])


def _machine(header: Header) -> str:
    machine = header.machine
    return ", ".join(str(part) for part in (machine.get("gpu"), machine["cpu"], f"{machine['cores']} cores") if part)


def _data(figures: Figures) -> str:
    data = getattr(figures, "data", None)
    return f"{data.name} ({data.recordings})" if data else ""
