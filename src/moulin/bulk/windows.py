"""Windows of a recording: several parts of one file, decoded in one pass."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

from moulin.arrays import Floats
from moulin.audio.timeline import Skip
from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import AudioError, MoulinError
from moulin.long_audio.recording_pieces import Blocks

_MISSING_SEC = 0.1
"""The part of a window behind the end of its recording that is worth a warning: manifests round."""

Window = tuple[float, float | None]
"""Where a window begins, and how long it is, both in seconds; None is to the end of the recording."""


class Windows:
    """The blocks of one pass through a recording, for windows in the order of their beginnings.

    Audio that a later window needs too is kept until then; windows that do not overlap keep none.
    """

    def __init__(self, blocks: Blocks, windows: Sequence[Window]) -> None:
        self._blocks = blocks
        self._windows = [_in_samples(window) for window in windows]
        self._at = 0
        """The sample up to which blocks were taken."""
        self._failure: MoulinError | None = None
        """What has ended the pass, for all windows that need more."""
        self._kept: deque[tuple[int, Floats | Skip]] = deque()
        """Blocks with the sample at which each begins."""

    def take(self, number: int, name: str) -> WindowBlocks:
        """The blocks of a window, which are read before the next window is taken. Errors call the recording `name`."""
        begin, end = self._windows[number]
        while self._kept and self._kept[0][0] + _samples(self._kept[0][1]) <= begin:
            self._kept.popleft()
        following = self._windows[number + 1][0] if number + 1 < len(self._windows) else math.inf
        return WindowBlocks(self, begin, end, following, name)

    @property
    def at(self) -> int:
        """The sample of the recording up to which it was decoded."""
        return self._at

    @property
    def warnings(self) -> tuple[str, ...]:
        """The recording's warnings so far."""
        return self._blocks.warnings

    def read(self, following: float) -> Iterator[tuple[int, Floats | Skip]]:
        """The blocks that are kept, and then more; what reaches beyond `following` is kept for the next window."""
        yield from list(self._kept)
        while (block := self._next()) is not None:
            at, self._at = self._at, self._at + _samples(block)
            if self._at > following:
                self._kept.append((at, block))
            yield at, block

    def _next(self) -> Floats | Skip | None:
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._blocks, None)
        except MoulinError as error:
            self._failure = error
            raise


class WindowBlocks(Iterator["Floats | Skip"]):
    """The blocks of one window. `next` raises AudioError, also where the recording ends before the window begins."""

    def __init__(self, windows: Windows, begin: int, end: float, following: float, name: str) -> None:
        """`begin` and `end` of the window and the begin of the `following` one, in samples."""
        self._windows, self._begin, self._end, self._name = windows, begin, end, name
        self._warnings: list[str] = []
        self._blocks = self._cut(following)

    def __next__(self) -> Floats | Skip:
        return next(self._blocks)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the recording, and of this window; complete when there are no more blocks."""
        return (*self._windows.warnings, *self._warnings)

    def _cut(self, following: float) -> Iterator[Floats | Skip]:
        begin, end = self._begin, self._end
        for at, block in self._windows.read(following):
            count = _samples(block)
            first, last = max(begin - at, 0), int(min(end - at, count))
            if last > first:
                yield Skip(last - first) if isinstance(block, Skip) else block[first:last]
            if at + count >= end:
                return
        at = self._windows.at
        if begin and at <= begin:
            raise AudioError(
                f"{self._name} is {at / SAMPLE_RATE:g} s long, expected audio from {begin / SAMPLE_RATE:g} s on"
            )
        if end < math.inf and (missing_sec := (end - at) / SAMPLE_RATE) > _MISSING_SEC:
            self._warnings.append(f"the recording ends {missing_sec:.1f} s before the window does")


def _in_samples(window: Window) -> tuple[int, float]:
    offset_sec, window_sec = window
    begin = round(offset_sec * SAMPLE_RATE)
    return begin, math.inf if window_sec is None else begin + round(window_sec * SAMPLE_RATE)


def _samples(block: Floats | Skip) -> int:
    return block.samples if isinstance(block, Skip) else len(block)
