"""Figures of `moulin bench encoder`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from moulin.evaluate.results.setup import SETTING


@dataclass(frozen=True, slots=True)
class EncoderRun:
    """One runner at one batch size: latency of a call, and utterances a second at the median; or why it failed."""

    runner: str
    batch: int
    calls: int = 0
    median_ms: float = 0.0
    best_ms: float = 0.0
    worst_ms: float = 0.0
    qps: float = 0.0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class EncoderFigures:
    runs: Sequence[EncoderRun]
    kind: str = "encoder"
    threads: int | None = field(default=None, metadata=SETTING)
    device: str | None = field(default=None, metadata=SETTING)
    frames: int | None = field(default=None, metadata=SETTING)
    on_device: bool = False
    cpu_time: bool = False
    """Latencies are CPU time."""
    rounds: int | None = None
    interrupted: bool = False
