"""Figures of `moulin bench leaderboard`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moulin.evaluate.results.setup import SETTING
from moulin.evaluate.wer import ErrorRate


@dataclass(frozen=True, slots=True)
class SetFigures:
    """One set, every recording once: audio and time within the calls, and errors pooled over all words."""

    name: str
    recordings: int
    audio_sec: float
    seconds: float
    rtfx: float
    wer: ErrorRate


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A figure that others published, for comparison."""

    name: str
    rtfx: float
    mean_wer: float
    conditions: str


@dataclass(frozen=True, slots=True)
class LeaderboardFigures:
    kind: str
    sets: Sequence[SetFigures]
    published: Sequence[PublishedRow]
    normalizer: str | None = None
    decoding: Mapping[str, str | int] | None = None
    dataset: str | None = field(default=None, metadata=SETTING)
    batch_size: int | None = field(default=None, metadata=SETTING)
    device: str | None = field(default=None, metadata=SETTING)
    interrupted: bool = False

    @property
    def rtfx(self) -> float:
        """Of all sets together."""
        return sum(it.audio_sec for it in self.sets) / sum(it.seconds for it in self.sets)

    @property
    def mean_wer(self) -> float:
        """The mean of the sets' rates, as the leaderboard's first column has it."""
        return sum(it.wer.rate for it in self.sets) / len(self.sets)
