"""A streaming model that hears a word in each stretch of loud samples, and cuts as moulin's endpoint rules do."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from moulin.arrays import Floats
from moulin.gateway.live_steps import Hear
from moulin.live_transcript import Segment, StreamUpdate
from moulin.transcript import Word

_BLOCK_SEC = 0.1
_BLOCK = int(_BLOCK_SEC * 16_000)
_LOUD = 0.01


@dataclass
class SimulatedTriton:
    """One client's streams. Words are called by when they begin in the stream; one that goes on has half its name."""

    longest_sec: float = 1.5
    """A segment as long as this is cut, and its last word moves into the next."""
    heard: list[str] = field(default_factory=list)
    """All words of all streams, once their streams have ended."""
    _samples: list[Floats] = field(default_factory=list)
    _closed: int = 0  # words in closed segments
    _segments: int = 0

    def hear(self, step: Hear) -> StreamUpdate:
        self._samples.append(step.samples)
        ended = step.end is not None
        duration = sum(map(len, self._samples)) / 16_000
        words = self._words(ended=ended)
        segments = list(self._cut(words, step.options["rule2_min_trailing_silence_sec"], duration, ended=ended))
        if ended:
            self.heard += [word.word for word in words]
            self.forget()
        return StreamUpdate(tuple(segments), any(s.is_final for s in segments), ended, duration)

    def forget(self) -> None:
        self._samples, self._closed, self._segments = [], 0, 0

    def _words(self, *, ended: bool) -> list[Word]:
        samples = np.concatenate(self._samples)
        blocks = np.array_split(samples, range(_BLOCK, len(samples), _BLOCK))
        loud = [bool(len(block)) and float(np.abs(block).max()) > _LOUD for block in blocks]
        words: list[Word] = []
        begin = None
        for number, is_loud in enumerate([*loud, False]):
            if is_loud and begin is None:
                begin = number
            elif not is_loud and begin is not None:
                goes_on = number == len(loud) and not ended
                name = f"W{begin}" if goes_on else f"W{begin}."
                # Rounded as a server's times are.
                words.append(Word(name, round(begin * _BLOCK_SEC, 3), round(number * _BLOCK_SEC, 3), 0.5))
                begin = None
        return words

    def _cut(self, words: list[Word], silence_sec: float, duration: float, *, ended: bool) -> list[Segment]:
        segments = []
        while opened := words[self._closed :]:
            count, paused = self._closes(opened, silence_sec, duration, ended=ended)
            final = count > 0
            taken = opened[:count] if final else opened
            segments.append(Segment(self._segments, " ".join(w.word for w in taken), tuple(taken), final, paused))
            if not final:
                break
            self._closed += count
            self._segments += 1
        return segments

    def _closes(self, opened: list[Word], silence_sec: float, duration: float, *, ended: bool) -> tuple[int, bool]:
        """How many words the open segment has when it is closed, 0 where it goes on; and whether a pause closed it."""
        for count, word in enumerate(opened, start=1):
            follows = opened[count].start_sec if count < len(opened) else duration
            if follows - word.end_sec >= silence_sec:
                return count, True
            if count > 1 and word.end_sec - opened[0].start_sec >= self.longest_sec:
                return count - 1, False
        return (len(opened) if ended else 0), False
