"""What the executor tells its processes when they start, and its own settings."""

from __future__ import annotations

from dataclasses import dataclass

from moulin.bulk.decode import TABLE_SEC
from moulin.bulk.transcriber import Transcriber


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """Of a process that decodes."""

    max_utterance_sec: float
    table_sec: float


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """Of the executor."""

    transcribers: tuple[Transcriber, ...]
    """One for each device."""
    decoders: int
    table_sec: float = TABLE_SEC
    tables_ahead: int = 4
    """Tables of audio for each engine, those that it has among them."""
