"""The page of a job of `moulin bulk`: throughput over time, failures by kind, and which recordings stand out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from moulin.bulk.figures import CLIPPED, JobFigures, Listed
from moulin.evaluate.pages.blocks import Block, Document, Fact, Facts, Paragraph, Plot, Plots, Section, Table
from moulin.evaluate.pages.plots import Series, line_chart

_SHOWN_KINDS = 30


def bulk_document(figures: JobFigures, name: str) -> Document:
    """The document of the job called `name`."""
    begun = datetime.fromtimestamp(figures.begun, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Document(
        "Bulk transcription",
        f"{name}, by {figures.status.model}, begun {begun}",
        [
            Section("", [_facts(figures), *_missing(figures)]),
            Section("Throughput", _throughput(figures)),
            Section("Failures", _kinds(figures.status.kinds, "No recording failed.")),
            Section("Warnings", _kinds(figures.warnings, "There are no warnings.")),
            Section(
                "Slowest to read and decode",
                [
                    Paragraph("Seconds of one decoding process, from opening the recording to its last sample."),
                    *_list(figures.slowest, "seconds", lambda one: f"{one.value:.2f}", speed=True),
                ],
            ),
            Section(
                "Least confident",
                [
                    Paragraph("The mean confidence of a recording's words: another language, noise, or no speech."),
                    *_list(figures.least_confident, "confidence", lambda one: f"{one.value:.2f}"),
                ],
            ),
            Section(
                "Clipped",
                [
                    Paragraph(f"At least {CLIPPED:.1%} of the samples are at full scale, after decoding to 16 kHz."),
                    *_list(figures.most_clipped, "clipped", lambda one: f"{one.value:.1%}"),
                ],
            ),
        ],
    )


def _facts(figures: JobFigures) -> Facts:
    status = figures.status
    speech = figures.speech_sec / figures.audio_sec if figures.audio_sec else 0.0
    confidence = figures.words_confidence
    return Facts(
        [
            Fact(f"{status.done:,}", "recordings done", f"in {status.parts:,} part{'s'[: status.parts != 1]}"),
            Fact(f"{status.failed:,}", "failed", f"{status.failed / max(status.done, 1):.2%}"),
            Fact(f"{figures.audio_sec / 3600:,.2f} h", "of audio", f"{speech:.0%} of it within words"),
            Fact("-" if confidence is None else f"{confidence:.2f}", "mean confidence", "of words, by their length"),
            Fact(f"{figures.clipped:,}", "clipped", f"{CLIPPED:.1%} of their samples or more"),
            Fact(f"{figures.decode_sec / 3600:,.2f} h", "of decoding", "of one core, reading included"),
        ]
    )


def _missing(figures: JobFigures) -> list[Block]:
    missing = figures.status.missing
    if not missing:
        return []
    return [Paragraph(f"{missing:,} recordings of the last run's manifest are missing.", warning=True)]


def _throughput(figures: JobFigures) -> list[Block]:
    points = figures.throughput()
    if not points:
        return [Paragraph("No part is written yet.")]
    chart = line_chart([Series("times real time", points, 0)], x_label="hours", y_label="times real time")
    rows = [(f"{hours:.3f}", f"{times:,.1f}") for hours, times in points]
    return [
        Plots([Plot("Audio written in parts, over the time since the first run began", chart)]),
        Table(("hours", "times real time"), rows),
    ]


def _kinds(kinds: Counter[str], none: str) -> list[Block]:
    if not kinds:
        return [Paragraph(none)]
    return [Table(("count", "what"), [(f"{count:,}", kind) for kind, count in kinds.most_common(_SHOWN_KINDS)])]


def _list(found: Sequence[Listed], unit: str, value: Callable[[Listed], str], *, speed: bool = False) -> list[Block]:
    if not found:
        return [Paragraph("None.")]
    header = ["recording", unit, "audio"]
    rows = [[one.id, value(one), f"{one.duration_sec:,.1f} s"] for one in found]
    if speed:
        header.append("times real time")
        for row, one in zip(rows, found, strict=True):
            row.append(f"{one.duration_sec / one.value:,.0f}" if one.value else "-")
    return [Table(header, rows)]
