"""Cuts of a recording whose speech probabilities are all known: what `Cutter` makes of it frame by frame, at once.

`Cutter` is the definition; here only pauses are looked at, not frames: a thirtieth of the steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.audio.waveform import SAMPLE_RATE
from moulin.long_audio.cutter import BREATH_SEC, MARGIN_SEC, PAUSE_SEC, SPEECH, least_speech
from moulin.long_audio.voice_activity import FRAME_SAMPLES

_FRAME_SEC = FRAME_SAMPLES / SAMPLE_RATE


def cut_points(probabilities: Floats, samples: int, max_piece_sec: float) -> list[tuple[int, int]]:
    """The pieces of a recording of `samples` samples: the first sample of each and the one behind its last.

    `probabilities` [N] are of all frames, the last of which may be incomplete.
    """
    return [
        (begin * FRAME_SAMPLES, min(end * FRAME_SAMPLES, samples))
        for begin, end in _Cuts(probabilities, max_piece_sec).pieces()
    ]


class _Cuts:
    def __init__(self, probabilities: Floats, max_piece_sec: float) -> None:
        self._probabilities = probabilities
        self._max = max(int(max_piece_sec / _FRAME_SEC), 1)
        self._long = self._max // 2
        self._pause, self._breath, self._margin = (
            round(seconds / _FRAME_SEC) for seconds in (PAUSE_SEC, BREATH_SEC, min(MARGIN_SEC, max_piece_sec / 4))
        )
        self._speech: Ints = np.flatnonzero(probabilities >= SPEECH)
        ends = np.flatnonzero(np.diff(self._speech) > self._breath)
        self._before: Ints = self._speech[[*ends, -1]] if len(self._speech) else self._speech
        """The last frames with speech before silences that may end a piece."""

    def pieces(self) -> Iterator[tuple[int, int]]:
        """The first frame of each piece, and the one behind its last."""
        frames = len(self._probabilities)
        free, seen = 0, -1
        """Frames below `free` are in pieces or dropped; decisions were made up to the frame `seen`."""
        begin: int | None = None
        while True:
            if begin is None:
                following = self._first_speech(free)
                if following is None:
                    return
                begin, seen = max(free, following - self._margin), following - 1
            end, at = self._next_cut(begin, seen + 1)
            if at >= frames:
                last = int(self._speech[-1])
                yield begin, min(last + 1 + self._margin, frames)
                return
            yield begin, end
            free, seen = end, at
            begin = free if self._has_speech(free, seen) else None

    def _next_cut(self, begin: int, earliest: int) -> tuple[int, int]:
        """The end of the piece that begins at `begin`, and the frame at which that is known, from `earliest` on."""
        longest = max(begin + self._max - 1, earliest)
        frames = len(self._probabilities)
        first = int(np.searchsorted(self._before, self._last_speech(earliest)))
        for number in range(first, len(self._before)):
            last = int(self._before[number])
            if last + self._breath > longest:
                break
            following = self._first_speech(last + 1)
            until = frames if following is None else following
            pause = max(last + self._pause, earliest)
            breath = max(begin + self._long - 1, last + self._breath, earliest)
            if pause <= breath and pause < until and pause <= longest:
                return last + 1 + self._margin, pause
            if breath < until and breath <= longest:
                return breath + 1 - (breath - last) // 2, breath
        if longest >= frames:
            return frames, frames
        return begin + least_speech(self._probabilities[begin : longest + 1]), longest

    def _first_speech(self, frame: int) -> int | None:
        at = int(np.searchsorted(self._speech, frame))
        return int(self._speech[at]) if at < len(self._speech) else None

    def _last_speech(self, frame: int) -> int:
        """The last frame with speech up to `frame`; there is one."""
        return int(self._speech[int(np.searchsorted(self._speech, frame, side="right")) - 1])

    def _has_speech(self, begin: int, end: int) -> bool:
        following = self._first_speech(begin)
        return following is not None and following <= end
