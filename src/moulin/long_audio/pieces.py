"""A recording as pieces short enough for a model, decoded lazily."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moulin.arrays import Floats
from moulin.audio.timeline import Skip
from moulin.audio.waveform import SAMPLE_RATE
from moulin.long_audio.cutter import Cutter, Piece
from moulin.long_audio.voice_activity import VoiceActivity

MAX_PIECE_SEC = 30.0
"""Models are trained on utterances of up to about 30 s, and attention's cost grows with the square of the length."""

_LOOKED_AT_ONCE_SEC = 2.0


class Pieces(Iterator[Piece]):
    """The pieces of a recording that contain speech, in order.

    A recording no longer than a piece may be is one piece, with or without speech. Of a longer one only the piece that
    is being cut is in memory.
    """

    def __init__(self, blocks: Iterator[Floats | Skip] | Iterator[Floats], *, max_utterance_sec: float) -> None:
        """`blocks` as of a `Recording`; no piece is longer than `max_utterance_sec`, nor than MAX_PIECE_SEC.

        `next` raises what `blocks` raises (AudioError), and EngineError where ONNX Runtime is needed and missing.
        """
        self._blocks = _Blocks(blocks)
        # A generator without a reference to self, so that dropping the last reference closes `blocks` and its file.
        self._pieces = _cut(self._blocks, min(max_utterance_sec, MAX_PIECE_SEC))

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def decoded_sec(self) -> float:
        """Seconds of the recording so far, skipped ones included; its duration when there are no more pieces."""
        return self._blocks.at / SAMPLE_RATE


class _Blocks:
    """Blocks of audio of any length, joined into longer ones on request."""

    def __init__(self, blocks: Iterator[Floats | Skip] | Iterator[Floats]) -> None:
        self.at = 0
        """The sample of the recording up to which blocks were taken."""
        self._blocks = blocks
        self._skipped: Skip | None = None

    def take(self, seconds: float) -> tuple[Floats, bool]:
        """The next blocks, in all `seconds` or a little more, and whether audio may go on behind them; less, and False,
        before a part that is skipped and at the end."""
        taken, samples = [np.zeros(0, np.float32)], 0
        goes_on = True
        while goes_on and samples < seconds * SAMPLE_RATE:
            block = next(self._blocks, None)
            if block is None or isinstance(block, Skip):
                self._skipped, goes_on = block, False
            else:
                taken.append(block)
                samples += len(block)
        self.at += samples
        return np.concatenate(taken), goes_on

    def skip(self) -> bool:
        """Go on behind the part that is skipped. Returns False where the recording has ended."""
        if self._skipped is None:
            return False
        self.at += self._skipped.samples
        return True


def _cut(blocks: _Blocks, max_sec: float) -> Iterator[Piece]:
    yield from _cut_run(blocks, max_sec)
    while blocks.skip():
        start = blocks.at
        for piece in _cut_run(blocks, max_sec):
            if len(piece.waveform):
                yield Piece(start + piece.start_samples, piece.waveform)


def _cut_run(blocks: _Blocks, max_sec: float) -> Iterator[Piece]:
    """The pieces of audio up to a part that is skipped; they are counted from 0."""
    beginning, goes_on = blocks.take(max_sec)
    if goes_on and len(beginning) == max_sec * SAMPLE_RATE:  # the recording may end here or continue
        more, goes_on = blocks.take(_LOOKED_AT_ONCE_SEC)
        beginning = np.concatenate([beginning, more])
    if len(beginning) <= max_sec * SAMPLE_RATE:
        yield Piece(0, beginning)
        return
    cutter = Cutter(max_sec, VoiceActivity())
    yield from cutter.accept(beginning)
    while goes_on:
        block, goes_on = blocks.take(_LOOKED_AT_ONCE_SEC)
        yield from cutter.accept(block)
    yield from cutter.finish()
