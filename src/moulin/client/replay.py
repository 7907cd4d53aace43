"""What a stream has said since its last final segment, to be said again to another server if its own is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_SAMPLES = 30 * 16_000
"""The most audio of a stream that is kept."""
KEPT_BYTES = 1024 << 20
"""The most audio of all streams of a process that is kept."""

_NOTHING = np.zeros(0, np.int16)


class ReplayMemory:
    """Bytes of audio that the streams of a process keep, within a limit."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit, self.used = limit, 0
        self.unmovable = 0
        """Open streams of which not all is kept that would have to be said again."""

    def take(self, count: int) -> bool:
        """Take `count` bytes, if there are so many."""
        if self.used + count > self._limit:
            return False
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        self.used -= count


@dataclass(slots=True)
class Part:
    """A piece of audio, an event behind audio, or options that hold from there on. `begin` is the number of samples
    before it."""

    begin: int
    samples: NDArray[np.int16] = field(default_factory=lambda: _NOTHING)
    event: int = 0
    options: Mapping[str, Any] | None = None

    @property
    def end(self) -> int:
        return self.begin + len(self.samples)


class Replay:
    """The parts of a stream from the sample `begin` on, and the `options` that hold there.

    Of audio the last `KEPT_SAMPLES` are kept, as long as there is memory. Where some that is not final yet is not kept,
    the stream cannot be moved until that has become final.
    """

    def __init__(self, memory: ReplayMemory, options: Mapping[str, Any] | None) -> None:
        self.begin = 0
        self.options: dict[str, Any] = dict(options or {})
        self._memory = memory
        self._parts: deque[Part] = deque()
        self._kept_from = self._end = 0
        self._was_whole = True

    @property
    def is_whole(self) -> bool:
        """Whether all audio from `begin` on is kept."""
        return self._kept_from <= self.begin

    def __iter__(self) -> Iterator[Part]:
        return iter(self._parts)

    def add(self, samples: NDArray[np.int16], event: int = 0, options: Mapping[str, Any] | None = None) -> None:
        """Keep what is sent next: options, the samples for which they hold first, and an event behind them."""
        if options is not None:
            self._parts.append(Part(self._end, options=options))
        if len(samples):
            self._add_audio(samples)
        if event:
            self._parts.append(Part(self._end, event=event))
        self._note()

    def forget_before(self, sample: int) -> None:
        """Everything before `sample` is final."""
        if sample <= self.begin:
            return
        self.begin = sample
        while self._parts and self._is_over(self._parts[0]):
            self._drop(self._parts.popleft())
        if self._parts and (cut := self.begin - self._parts[0].begin) > 0 and len(self._parts[0].samples):
            first = self._parts[0]
            self._parts[0] = Part(self.begin, first.samples[cut:])
            self._memory.give_back(2 * cut)
        self._kept_from = max(self._kept_from, min(self.begin, self._end))
        self._note()

    def take_back(self, options: Mapping[str, Any] | None, num_samples: int) -> None:
        """The server has refused a row with these options and so much audio: it counts as not sent."""
        if options is not None:
            self._parts = deque(part for part in self._parts if part.options is not options)
        if num_samples:  # which cannot be told from what was sent behind it
            self._drop_all()
            self._end -= num_samples
            self._kept_from = self._end
        self._note()

    def close(self) -> None:
        """Forget everything: the stream has ended."""
        self._drop_all()
        self._kept_from = self.begin
        self._note()

    def _add_audio(self, samples: NDArray[np.int16]) -> None:
        if not self._memory.take(samples.nbytes):
            self._drop_all()
            self._end += len(samples)
            self._kept_from = self._end
            return
        self._parts.append(Part(self._end, samples.copy()))  # the caller may use its own again
        self._end += len(samples)
        while self._end - self._kept_from > KEPT_SAMPLES:
            first = self._parts.popleft()
            self._drop(first)
            self._kept_from = max(self._kept_from, first.end)

    def _is_over(self, part: Part) -> bool:
        """Whether a part says nothing about what comes from `begin` on. An end always does: it is the last."""
        return part.end <= self.begin and (part is not self._parts[-1] or not part.event)

    def _drop(self, part: Part) -> None:
        self._memory.give_back(part.samples.nbytes)
        if part.options is not None:
            self.options.update(part.options)

    def _drop_all(self) -> None:
        while self._parts:
            self._drop(self._parts.popleft())

    def _note(self) -> None:
        if self.is_whole != self._was_whole:
            self._was_whole = self.is_whole
            self._memory.unmovable += -1 if self._was_whole else 1
