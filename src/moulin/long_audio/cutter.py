"""Cuts of a long recording: at silences, and without one where a piece reaches its maximum length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moulin.arrays import Floats
from moulin.audio.waveform import SAMPLE_RATE
from moulin.long_audio.voice_activity import FRAME_SAMPLES

_FRAME_SEC = FRAME_SAMPLES / SAMPLE_RATE

# The probability from which a frame counts as speech. Low, because a word taken for silence is lost to the model, while
# noise taken for speech costs time only.
SPEECH = 0.25

PAUSE_SEC = 0.8
"""A silence that always ends a piece, and holds the margins of both neighbours. A model trained on utterances makes
fewer errors after a pause when a piece begins there (docs/gateway.md has figures)."""

BREATH_SEC = 0.3
"""A silence that ends a piece longer than half of the maximum."""

MARGIN_SEC = 0.4
"""Silence kept before and after speech; the rest of a pause is dropped."""

_BLUR_FRAMES = 5
"""Frames (0.16 s) over which probabilities are averaged to find the cut in speech without a pause."""


@dataclass(frozen=True, slots=True)
class Place:
    """The channel and track that a piece is of, counted from 1, where they are transcribed one by one."""

    channel: int | None
    track: int | None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a recording that contains speech."""

    start_samples: int
    """The piece's first sample, counted from the beginning of the recording."""
    waveform: Floats
    place: Place | None = None

    @property
    def start_sec(self) -> float:
        return self.start_samples / SAMPLE_RATE

    @property
    def end_sec(self) -> float:
        return self.start_sec + len(self.waveform) / SAMPLE_RATE


class Cutter:
    """Cuts audio that arrives in blocks of any length into pieces. Holds at most one piece and a pause in memory.

    No input, output or threads: `voice_activity` maps samples [N * FRAME_SAMPLES] to speech probabilities [N].
    """

    def __init__(self, max_piece_sec: float, voice_activity: Callable[[Floats], Floats]) -> None:
        """No piece is longer than `max_piece_sec`; from half of it on, a breath is enough to end a piece."""
        self._voice_activity = voice_activity
        self._max_frames = max(int(max_piece_sec / _FRAME_SEC), 1)
        self._long_frames = self._max_frames // 2
        self._pause, self._breath, self._margin = (
            round(seconds / _FRAME_SEC) for seconds in (PAUSE_SEC, BREATH_SEC, min(MARGIN_SEC, max_piece_sec / 4))
        )
        self._start = 0
        """The first sample of `_samples`, counted from the beginning of the recording."""
        self._samples = np.zeros(0, np.float32)
        self._frames: list[float] = []
        """Speech probabilities of the frames of `_samples` classified so far."""
        self._last_speech: int | None = None
        """The index of the last frame with speech in `_frames`, or None."""

    def accept(self, block: Floats) -> list[Piece]:
        """The pieces that end in `block` [N], 16 kHz, mono."""
        self._samples = np.concatenate([self._samples, block])
        return self._look()

    def finish(self) -> list[Piece]:
        """The remaining pieces, when the recording has ended."""
        end = self._start + len(self._samples)
        padding = np.zeros(-len(self._samples) % FRAME_SAMPLES, np.float32)
        self._samples = np.concatenate([self._samples, padding])
        pieces = [Piece(piece.start_samples, piece.waveform[: end - piece.start_samples]) for piece in self._look()]
        self._samples = self._samples[: end - self._start]
        if self._last_speech is not None:
            pieces.append(self._cut(self._last_speech + 1 + self._margin))
        return pieces

    def _look(self) -> list[Piece]:
        """Classify the frames completed by the last block; returns the pieces that they complete."""
        begin, end = len(self._frames) * FRAME_SAMPLES, len(self._samples) // FRAME_SAMPLES * FRAME_SAMPLES
        pieces: list[Piece] = []
        if end > begin:
            for probability in self._voice_activity(self._samples[begin:end]).tolist():
                self._frames.append(probability)
                if probability >= SPEECH:
                    if self._last_speech is None:
                        self._drop(len(self._frames) - 1 - self._margin)
                    self._last_speech = len(self._frames) - 1
                cut = self._where_to_cut()
                if cut is not None:
                    pieces.append(self._cut(cut))
        if self._last_speech is None:
            self._drop(len(self._frames) - self._margin)
        return pieces

    def _where_to_cut(self) -> int | None:
        """The number of frames in the piece that is complete, or None while it continues."""
        if self._last_speech is None:
            return None
        length = len(self._frames)
        silence = length - 1 - self._last_speech
        if silence >= self._pause:
            return length - silence + self._margin
        if length >= self._long_frames and silence >= self._breath:
            return length - silence // 2
        if length >= self._max_frames:
            return least_speech(np.array(self._frames, np.float32))
        return None

    def _cut(self, frames: int) -> Piece:
        piece = Piece(self._start, self._samples[: frames * FRAME_SAMPLES])
        self._drop(frames)
        return piece

    def _drop(self, frames: int) -> None:
        """Discard the first `frames` frames."""
        frames = min(max(frames, 0), len(self._frames))
        if frames == 0:
            return
        self._samples = self._samples[frames * FRAME_SAMPLES :].copy()
        self._start += frames * FRAME_SAMPLES
        del self._frames[:frames]
        self._last_speech = next((at for at in reversed(range(len(self._frames))) if self._frames[at] >= SPEECH), None)


def least_speech(probabilities: Floats) -> int:
    """The frame in the second half of a piece around which speech is least probable; its length where it is short."""
    length = len(probabilities)
    if length < 4 * _BLUR_FRAMES:
        return length
    blurred = np.convolve(probabilities, np.ones(_BLUR_FRAMES) / _BLUR_FRAMES, mode="same")
    # Without the last frames, which the convolution averages with zeros.
    return length // 2 + int(np.argmin(blurred[length // 2 : length - _BLUR_FRAMES // 2]))
