"""Figures of a job for its page: throughput over time, warnings, and which recordings stand out."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from moulin.arrays import Floats
from moulin.bulk.output.formats import FIGURES
from moulin.bulk.output.job import begun_at, format_of
from moulin.bulk.output.parts import read_columns
from moulin.bulk.status import Status, kind_of, status_of

LISTED = 20
"""Recordings in each list."""

CLIPPED = 0.001
"""The share of samples at full scale from which a recording counts as clipped."""

_MOST_KINDS = 1000
_BINS = 60


@dataclass(frozen=True, slots=True)
class Listed:
    """A recording that stands out, and the figure by which it does."""

    id: str
    duration_sec: float
    value: float


@dataclass(slots=True)
class JobFigures:
    """Sums over a job's recordings, and lists of those at the ends."""

    status: Status
    begun: float
    """When the first run began, in seconds since 1970."""
    audio_sec: float = 0.0
    speech_sec: float = 0.0
    """Time that words cover."""
    decode_sec: float = 0.0
    clipped: int = 0
    """Recordings from CLIPPED on."""
    words_confidence: float | None = None
    """The mean of the recordings' confidences, weighted by their speech."""
    warnings: Counter[str] = field(default_factory=Counter)
    """Warnings by their kind."""
    parts: list[tuple[float, float]] = field(default_factory=list)
    """When each part was written, and seconds of audio in it, in the order of time."""
    slowest: list[Listed] = field(default_factory=list)
    """By seconds of reading and decoding."""
    least_confident: list[Listed] = field(default_factory=list)
    """By the mean confidence of their words."""
    most_clipped: list[Listed] = field(default_factory=list)
    """By the share of samples at full scale, from CLIPPED on."""

    def throughput(self) -> list[tuple[float, float]]:
        """Hours since the beginning, and times real time in each of equal spans that end there.

        A part counts where it was written. Spans in which no run was under way have 0.
        """
        if not self.parts:
            return []
        times, seconds = (np.array(column) for column in zip(*self.parts, strict=True))
        span = max(float(times[-1]) - self.begun, 1.0)
        count = min(_BINS, len(self.parts))
        sums, edges = np.histogram(times - self.begun, count, (0.0, span), weights=seconds)
        return [(float(end) / 3600, float(one) / (span / count)) for end, one in zip(edges[1:], sums, strict=True)]


def figures_of(folder: Path) -> JobFigures:
    """The figures of the job in `folder`. Raises OptionsError where there is none, or a part is damaged."""
    figures = JobFigures(status_of(folder), begun_at(folder))
    slowest, least, clipped = _Most(), _Most(), _Most()
    weighted = 0.0
    for part, table in read_columns(folder, format_of(folder), FIGURES):
        audio_sec = _sum(table, "duration_sec")
        figures.parts.append((part.stat().st_mtime, audio_sec))
        figures.audio_sec += audio_sec
        figures.speech_sec += _sum(table, "speech_sec")
        figures.decode_sec += _sum(table, "decode_sec")
        weighted += pc.sum(pc.multiply(table.column("confidence"), table.column("speech_sec"))).as_py() or 0.0
        is_clipped = pc.greater_equal(table.column("clipped"), CLIPPED)
        figures.clipped += pc.sum(is_clipped).as_py() or 0
        _count_warnings(table, figures.warnings)
        slowest.add(table, "decode_sec")
        least.add(table, "confidence", sign=-1)
        clipped.add(table.filter(pc.fill_null(is_clipped, False)), "clipped")
    figures.parts.sort()
    figures.words_confidence = weighted / figures.speech_sec if figures.speech_sec else None
    figures.slowest, figures.least_confident, figures.most_clipped = slowest.listed, least.listed, clipped.listed
    return figures


class _Most:
    """The recordings with the greatest figures, or with the least where they are negated."""

    def __init__(self) -> None:
        self._found: list[tuple[float, str, float]] = []
        self._sign = 1

    def add(self, table: Any, column: str, *, sign: int = 1) -> None:
        self._sign = sign
        values: Floats = pc.fill_null(table.column(column), np.nan).to_numpy() * sign
        order = np.argsort(-values, kind="stable")[:LISTED]  # NaN comes last
        rows = table.take(order[~np.isnan(values[order])])
        found = zip(rows.column(column).to_pylist(), *_names(rows), strict=True)
        self._found = heapq.nlargest(LISTED, [*self._found, *((sign * value, id, sec) for value, id, sec in found)])

    @property
    def listed(self) -> list[Listed]:
        return [Listed(id, duration_sec, self._sign * value) for value, id, duration_sec in self._found]


def _names(rows: Any) -> Iterator[list[Any]]:
    yield rows.column("id").to_pylist()
    yield [seconds or 0.0 for seconds in rows.column("duration_sec").to_pylist()]


def _sum(table: Any, column: str) -> float:
    return float(pc.sum(table.column(column)).as_py() or 0.0)


def _count_warnings(table: Any, kinds: Counter[str]) -> None:
    with_some = table.filter(pc.fill_null(pc.greater(pc.list_value_length(table.column("warnings")), 0), False))
    for id, warnings in zip(with_some.column("id").to_pylist(), with_some.column("warnings").to_pylist(), strict=True):
        for warning in warnings:
            kind = kind_of(warning, id)
            if kind in kinds or len(kinds) < _MOST_KINDS:
                kinds[kind] += 1
