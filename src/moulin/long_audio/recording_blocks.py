"""All audio of a recording in blocks, for who hears it as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from moulin.arrays import Floats
from moulin.audio.selection import Selection
from moulin.audio.timeline import Skip
from moulin.audio.waveform import SAMPLE_RATE
from moulin.long_audio.cutter import Piece, Place
from moulin.long_audio.recording_pieces import Blocks, OpenRecordings, place_of


@dataclass(frozen=True, slots=True)
class Run:
    """A part of a recording without a gap, of one channel and track where these are heard by themselves: a stream."""

    start_samples: int
    place: Place | None
    end_samples: int
    """What has come of it so far."""

    @classmethod
    def of(cls, block: Piece) -> Run:
        """The run that begins with `block`."""
        return cls(block.start_samples, block.place, block.start_samples + len(block.waveform))

    def followed_by(self, block: Piece) -> Run | None:
        """The run with `block` behind it; None where the block begins another."""
        if (block.start_samples, block.place) != (self.end_samples, self.place):
            return None
        return replace(self, end_samples=self.end_samples + len(block.waveform))

    @property
    def piece(self) -> Piece:
        """What transcripts with times from the run's beginning are of, for `JoinedTranscript`."""
        return Piece(self.start_samples, np.zeros(0, np.float32), self.place)


class RecordingBlocks(Iterator[Piece]):
    """`RecordingPieces` without cuts: pieces follow one another, but for parts that are skipped.

    Channels and tracks that are heard by themselves come one after another. `next` raises AudioError.
    """

    def __init__(self, recordings: OpenRecordings, selection: Selection, block_sec: float = 1.0) -> None:
        """Blocks are `block_sec` or a little longer, the last ones of recordings shorter."""
        self._block_samples = block_sec * SAMPLE_RATE
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
            for piece in _blocks(recording, self._block_samples):
                yield piece if place is None else replace(piece, place=place)
            self._warnings.update(dict.fromkeys(recording.warnings))


def _blocks(recording: Blocks, least: float) -> Iterator[Piece]:
    waiting: list[Floats] = []
    start = samples = 0
    for block in recording:
        if not isinstance(block, Skip):
            waiting.append(block)
            samples += len(block)
        if samples >= least or (samples and isinstance(block, Skip)):
            yield Piece(start, np.concatenate(waiting))
            start, waiting, samples = start + samples, [], 0
        if isinstance(block, Skip):
            start += block.samples
    if samples:
        yield Piece(start, np.concatenate(waiting))
