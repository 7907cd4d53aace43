"""A recording as pieces that a model takes, decoded while they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moulin.arrays import Floats
from moulin.audio.waveform import SAMPLE_RATE
from moulin.long_audio.cutter import Cutter, Piece
from moulin.long_audio.voice_activity import VoiceActivity

MAX_PIECE_SEC = 30.0
"""Models are trained on utterances of up to about so long, and attention takes time with the square of the length."""

_LOOKED_AT_ONCE_SEC = 2.0


class Pieces(Iterator[Piece]):
    """The pieces in which somebody speaks, in order.

    A recording that a model takes at once is one piece, whatever is in it. Of a longer one no more is in memory than
    the piece that is being cut.
    """

    def __init__(self, blocks: Iterator[Floats], *, max_utterance_sec: float) -> None:
        """`blocks` as of `audio_blocks`; no piece is longer than `max_utterance_sec`, nor than MAX_PIECE_SEC.

        `next` raises what `blocks` raises (AudioError), and EngineError where ONNX Runtime is needed and missing.
        """
        self._blocks = _Blocks(blocks)
        # Without a reference to self: with its last user, `blocks` and its file are closed at once.
        self._pieces = _cut(self._blocks, min(max_utterance_sec, MAX_PIECE_SEC))

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def decoded_sec(self) -> float:
        """The length of what has been decoded: of the recording, when there are no more pieces."""
        return self._blocks.taken_samples / SAMPLE_RATE


class _Blocks:
    """Audio of any block length, taken in other lengths."""

    def __init__(self, blocks: Iterator[Floats]) -> None:
        self.taken_samples = 0
        self._blocks = blocks

    def take(self, seconds: float) -> Floats:
        """The next `seconds` or a little more; less at the end."""
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
    if len(beginning) == max_sec * SAMPLE_RATE:  # there may be more, or not
        beginning = np.concatenate([beginning, blocks.take(_LOOKED_AT_ONCE_SEC)])
    if len(beginning) <= max_sec * SAMPLE_RATE:
        yield Piece(0, beginning)
        return
    cutter = Cutter(max_sec, VoiceActivity())
    yield from cutter.accept(beginning)
    while len(block := blocks.take(_LOOKED_AT_ONCE_SEC)):
        yield from cutter.accept(block)
    yield from cutter.finish()
