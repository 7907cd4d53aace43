"""Latencies of one run: their distribution, and their course over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moulin.evaluate.results.setup import Percentiles

_TIMELINE_BINS = 40


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies `ms` [n] of chunks or requests due at `at_sec` [n], seconds from the start of the measured window."""

    at_sec: NDArray[np.float64]
    ms: NDArray[np.float64]

    @classmethod
    def between(cls, pairs: Sequence[tuple[float, float]], first_sec: float = 0.0) -> Latencies:
        """The latencies of pairs (due, replied) in seconds."""
        due, replied = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
        return cls(due - first_sec, (replied - due) * 1e3)

    def __len__(self) -> int:
        return len(self.ms)

    def percentile(self, percent: float) -> float:
        """The percentile in ms; NaN where there are no latencies."""
        return float(np.percentile(self.ms, percent)) if len(self.ms) else math.nan

    def since(self, sec: float) -> Latencies:
        """The latencies of chunks or requests due at `sec` or later."""
        late = self.at_sec >= sec
        return Latencies(self.at_sec[late], self.ms[late])

    def percentiles(self) -> Percentiles:
        """The percentiles of a report."""
        return Percentiles(*(rounded(self.percentile(percent), 1) for percent in (50, 90, 95, 99, 100)))

    def distribution(self) -> list[float]:
        """The percentiles 0, 1, … 100; empty where there are none."""
        return [round(float(ms), 1) for ms in np.percentile(self.ms, range(101))] if len(self.ms) else []

    def timeline(self, seconds: float) -> list[list[float]]:
        """[second, p50, p95] of each of 40 parts of the window, or of each second of a shorter one."""
        width = max(1.0, seconds / _TIMELINE_BINS)
        rows = []
        for start in np.arange(0, seconds, width):
            ms = self.ms[(self.at_sec >= start) & (self.at_sec < start + width)]
            if len(ms):
                rows.append(
                    [round(float(start + width / 2), 2), *(round(float(np.percentile(ms, p)), 1) for p in (50, 95))]
                )
        return rows


def rounded(value: float, digits: int) -> float | None:
    """`value` rounded; None for NaN, which JSON does not have."""
    return None if math.isnan(value) else round(value, digits)
