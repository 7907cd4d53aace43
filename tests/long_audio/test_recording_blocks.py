"""All audio of a recording in blocks of a second, with its times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.selection import MIX, Selection
from moulin.audio.timeline import Skip
from moulin.long_audio.recording_blocks import RecordingBlocks


class Given:
    def __init__(self, blocks: list[Floats | Skip], warnings: tuple[str, ...] = ()) -> None:
        self._blocks, self.warnings = iter(blocks), warnings

    def __iter__(self) -> Iterator[Floats | Skip]:
        return self._blocks

    def __next__(self) -> Floats | Skip:
        return next(self._blocks)


def ramp(start: int, samples: int) -> Floats:
    return np.arange(start, start + samples, dtype=np.float32)


@pytest.mark.parametrize("size", [1, 160, 4096, 40_000])
def test_every_sample_once_and_in_its_place(size: int) -> None:
    audio = ramp(0, 50_000)
    blocks: list[Floats | Skip] = [audio[first : first + size] for first in range(0, len(audio), size)]
    pieces = RecordingBlocks(lambda: [(MIX, Given(blocks))], MIX)
    heard = list(pieces)
    assert np.concatenate([piece.waveform for piece in heard]).tolist() == audio.tolist()
    assert all(piece.start_samples == piece.waveform[0] and piece.place is None for piece in heard)
    assert all(16_000 <= len(piece.waveform) < 16_000 + size for piece in heard[:-1])
    assert pieces.decoded_sec == 50_000 / 16_000


def test_what_is_skipped_moves_what_follows() -> None:
    blocks: list[Floats | Skip] = [Skip(100), ramp(0, 8000), Skip(1_600_000), Skip(16_000), ramp(0, 8000)]
    heard = list(RecordingBlocks(lambda: [(MIX, Given(blocks))], MIX))
    assert [piece.start_samples for piece in heard] == [100, 100 + 8000 + 1_616_000]


def test_channels_one_after_another() -> None:
    each = Selection("each")
    given = [(Selection(str(n)), Given([ramp(0, 100 * n)], (f"channel {n}", "both"))) for n in (1, 2)]
    pieces = RecordingBlocks(lambda: given, each)
    assert [(p.start_samples, p.place and p.place.channel, len(p.waveform)) for p in pieces] == [
        (0, 1, 100),
        (0, 2, 200),
    ]
    assert pieces.warnings == ("channel 1", "both", "channel 2")
    assert pieces.decoded_sec == 200 / 16_000


def test_nothing() -> None:
    pieces = RecordingBlocks(lambda: [(MIX, Given([]))], MIX)
    assert list(pieces) == []
    assert pieces.decoded_sec == 0
