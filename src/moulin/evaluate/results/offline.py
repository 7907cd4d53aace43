"""Figures of `moulin bench offline` with all recordings at once."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moulin.evaluate.results.setup import SETTING, Data


@dataclass(frozen=True, slots=True)
class UtteranceErrors:
    errors: int
    words: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """One target: wall time of each round, RTFx (audio seconds a second), word errors of the last round, and CPU time
    of each round."""

    name: str
    seconds: Sequence[float]
    rtfx_median: float
    rtfx_best: float
    rtfx_worst: float
    wer: float
    word_errors: int
    words: int
    insertions: int | None = None
    deletions: int | None = None
    substitutions: int | None = None
    utterances: Mapping[str, UtteranceErrors] | None = None
    cpu_sec: Sequence[float] | None = None

    def cpu_ms_of_second(self, audio_sec: float) -> float | None:
        """CPU milliseconds for a second of audio in the median round, of `audio_sec`."""
        return 1000 * statistics.median(self.cpu_sec) / audio_sec if self.cpu_sec else None


@dataclass(frozen=True, slots=True)
class OfflineFigures:
    kind: str
    audio_sec: float
    """Audio of a round."""
    targets: Sequence[Throughput]
    data: Data | None = None
    normalizer: str | None = None
    decoding: Mapping[str, str | int] | None = None
    threads: int | None = field(default=None, metadata=SETTING)
    device: str | None = field(default=None, metadata=SETTING)
    repeat: int | None = field(default=None, metadata=SETTING)
    interrupted: bool = False
