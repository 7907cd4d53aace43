"""A recording as pieces that a model takes, decoded while they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moulin.audio.waveform import SAMPLE_RATE
from moulin.long_audio.cutter import Cutter, Floats, Piece
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
        self.decoded_samples = 0
        """So far."""
        self._max_sec = min(max_utterance_sec, MAX_PIECE_SEC)
        self._blocks = self._counted(blocks)
        self._pieces = self._cut()

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def decoded_sec(self) -> float:
        """The length of what has been decoded: of the recording, when there are no more pieces."""
        return self.decoded_samples / SAMPLE_RATE

    def _cut(self) -> Iterator[Piece]:
        first = self._take(self._max_sec)
        rest = self._take(_LOOKED_AT_ONCE_SEC) if self.decoded_sec >= self._max_sec else _NOTHING
        if self.decoded_sec <= self._max_sec:
            yield Piece(0, np.concatenate([first, rest]))
            return
        cutter = Cutter(self._max_sec, VoiceActivity())
        yield from cutter.accept(np.concatenate([first, rest]))
        while len(block := self._take(_LOOKED_AT_ONCE_SEC)):
            yield from cutter.accept(block)
        yield from cutter.finish()

    def _take(self, seconds: float) -> Floats:
        """The next blocks, of `seconds` together or a little more; less at the end."""
        taken, samples = [_NOTHING], 0
        while samples < seconds * SAMPLE_RATE:
            block = next(self._blocks, None)
            if block is None:
                break
            taken.append(block)
            samples += len(block)
        return np.concatenate(taken)

    def _counted(self, blocks: Iterator[Floats]) -> Iterator[Floats]:
        for block in blocks:
            self.decoded_samples += len(block)
            yield block


_NOTHING = np.zeros(0, np.float32)
