"""A recording as pieces short enough for a model, decoded lazily."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moulin.arrays import Floats
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

    def __init__(self, blocks: Iterator[Floats], *, max_utterance_sec: float) -> None:
        """`blocks` as of `audio_blocks`; no piece is longer than `max_utterance_sec`, nor than MAX_PIECE_SEC.

        `next` raises what `blocks` raises (AudioError), and EngineError where ONNX Runtime is needed and missing.
        """
        self._blocks = _Blocks(blocks)
        # A generator without a reference to self, so that dropping the last reference closes `blocks` and its file.
        self._pieces = _cut(self._blocks, min(max_utterance_sec, MAX_PIECE_SEC))

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def decoded_sec(self) -> float:
        """Seconds decoded so far; the recording's duration when there are no more pieces."""
        return self._blocks.taken_samples / SAMPLE_RATE


class _Blocks:
    """Blocks of audio of any length, joined into longer ones on request."""

    def __init__(self, blocks: Iterator[Floats]) -> None:
        self.taken_samples = 0
        self._blocks = blocks

    def take(self, seconds: float) -> Floats:
        """The next blocks, in all `seconds` or a little more; less at the end."""
        taken, samples = [np.zeros(0, np.float32)], 0
        while samples < seconds * SAMPLE_RATE:
            block = next(self._blocks, None)
            if block is None:
                break
            taken.append(block)
            samples += len(block)
        self.taken_samples += samples
        return np.concatenate(taken)


def _cut(blocks: _Blocks, max_sec: float) -> Iterator[Piece]:
    beginning = blocks.take(max_sec)
    if len(beginning) == max_sec * SAMPLE_RATE:  # the recording may end here or continue
        beginning = np.concatenate([beginning, blocks.take(_LOOKED_AT_ONCE_SEC)])
    if len(beginning) <= max_sec * SAMPLE_RATE:
        yield Piece(0, beginning)
        return
    cutter = Cutter(max_sec, VoiceActivity())
    yield from cutter.accept(beginning)
    while len(block := blocks.take(_LOOKED_AT_ONCE_SEC)):
        yield from cutter.accept(block)
    yield from cutter.finish()
