"""What the executor tells its processes when they start, and its own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moulin.bulk.decode import TABLE_SEC
from moulin.bulk.transcriber import Transcriber
from moulin.long_audio.pieces import MAX_PIECE_SEC

CutPlace = Literal["decoders", "engine"]
"""Where long recordings are cut: one by one by the processes that decode, or many at once by that with the model."""

_CUT_TOGETHER = 16
_MOST_SEC = 16 * 3600.0


def rows_at_least(cut: CutPlace) -> int:
    """Recordings of a table, unless they are very long: the engine's cuts are the faster the more there are."""
    return 1 if cut == "decoders" else _CUT_TOGETHER


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """Of a process that decodes."""

    max_utterance_sec: float = MAX_PIECE_SEC
    table_sec: float = TABLE_SEC
    cut: CutPlace = "decoders"

    def is_full(self, rows: int, seconds: float) -> bool:
        """Whether a table with so many rows goes out."""
        return seconds >= (self.table_sec if rows >= rows_at_least(self.cut) else _MOST_SEC)


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """Of the executor."""

    transcribers: tuple[Transcriber, ...]
    """One for each process with the model, on its device."""
    decoders: int
    decoding: DecodingSettings
    tables_ahead: int = 4
    """Tables of audio for each engine, those that it has among them."""
