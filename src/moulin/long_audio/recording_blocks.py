"""All audio of a recording in blocks of about a second, for who hears it as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moulin.arrays import Floats
from moulin.audio.selection import Selection
from moulin.audio.timeline import Skip
from moulin.audio.waveform import SAMPLE_RATE
from moulin.long_audio.cutter import Piece
from moulin.long_audio.recording_pieces import Blocks, OpenRecordings, place_of

_BLOCK_SEC = 1.0


class RecordingBlocks(Iterator[Piece]):
    """`RecordingPieces` without cuts: pieces follow one another, but for parts that are skipped.

    Channels and tracks that are heard by themselves come one after another. `next` raises AudioError.
    """

    def __init__(self, recordings: OpenRecordings, selection: Selection) -> None:
        self.decoded_sec = 0.0
        """Seconds decoded so far, of the longest channel or track."""
        self._warnings: dict[str, None] = {}
        self._blocks = self._all(recordings, selection)

    def __next__(self) -> Piece:
        piece = next(self._blocks)
        self.decoded_sec = max(self.decoded_sec, piece.end_sec)
        return piece

    @property
    def warnings(self) -> tuple[str, ...]:
        """The recordings' warnings, each once; complete when there are no more pieces."""
        return tuple(self._warnings)

    def _all(self, recordings: OpenRecordings, selection: Selection) -> Iterator[Piece]:
        for single, recording in recordings():
            place = place_of(selection, single)
            for piece in _blocks(recording):
                yield piece if place is None else replace(piece, place=place)
            self._warnings.update(dict.fromkeys(recording.warnings))


def _blocks(recording: Blocks) -> Iterator[Piece]:
    waiting: list[Floats] = []
    start = samples = 0
    for block in recording:
        if not isinstance(block, Skip):
            waiting.append(block)
            samples += len(block)
        if samples >= _BLOCK_SEC * SAMPLE_RATE or (samples and isinstance(block, Skip)):
            yield Piece(start, np.concatenate(waiting))
            start, waiting, samples = start + samples, [], 0
        if isinstance(block, Skip):
            start += block.samples
    if samples:
        yield Piece(start, np.concatenate(waiting))
