"""Speech on a terminal while it is recognised."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from moulin.live_transcript import Segment, StreamUpdate
from moulin.transcript import Word

_WAIT_SEC = 1.0
"""What a word waits until it is settled, and a line for more words, by the audio's clock."""


class LiveText:
    """Shows the open segment, dim, growing in place; a final one stays as a paragraph of its own.

    The text is on standard output where that is the terminal, so that final segments need not be printed again; else on
    standard error. Where neither is a terminal nothing is shown.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=not sys.stdout.isatty(), highlight=False)
        self._growing = ""
        # No other output goes to this console, and it is refreshed only when text comes.
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> LiveText:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, update: StreamUpdate) -> None:
        if not self._console.is_terminal:
            return
        growing = "".join(segment.text for segment in update.segments if not segment.is_final)
        if growing != self._growing:
            self._live.update(self._last_lines(growing), refresh=True)
            self._growing = growing
        for segment in update.segments:
            if segment.is_final:
                self._console.print(Text(segment.text), soft_wrap=True)  # to be copied as one line

    def _last_lines(self, text: str) -> Text:
        """The last lines of `text` that fit the terminal: lines that have scrolled off the screen cannot be changed."""
        lines = Text(text, style="dim").wrap(self._console, self._console.width)
        return Text("\n").join(lines[1 - self._console.height :])


class TextLines:
    """Writes text where nothing can be taken back, a pipe or a file, in whole lines.

    A line ends with its segment, and within one once a second of audio. A word of an open segment is written when it is
    settled: it began a second ago and another word follows, or it ended a second ago. Modified beam search may still
    change it then; what is written stays, and the text goes on behind it.
    """

    def __init__(self, to: TextIO) -> None:
        self._to = to
        self._written: tuple[Word, ...] = ()
        """The words of the open segment that have been written."""
        self._line_sec = -math.inf
        """The end of the audio when the last line was written."""
        self._is_empty = True

    def write(self, update: StreamUpdate) -> None:
        now_sec = update.duration_sec
        for segment in update.segments:
            if segment.is_final:
                self._write(segment, len(segment.words), now_sec)
                self._written = self._written[len(segment.words) :]
            elif now_sec - self._line_sec >= _WAIT_SEC:
                self._write(segment, _settled(segment.words, now_sec), now_sec)

    def end(self) -> None:
        """Write an empty line where nothing was said."""
        if self._is_empty:
            self._line("")

    def _write(self, segment: Segment, end: int, now_sec: float) -> None:
        """The words of `segment` from the first unwritten one to before number `end`."""
        begin = _number_of(self._written, segment.words)
        if begin < end:
            self._line(segment.text[_offset(segment, begin) : _offset(segment, end)].strip())
            self._written, self._line_sec = segment.words[:end], now_sec

    def _line(self, text: str) -> None:
        self._to.write(f"{text}\n")
        self._to.flush()
        self._is_empty = False


def _settled(words: Sequence[Word], now_sec: float) -> int:
    """The number of `words`, from the first, that will not change any more."""
    count = sum(word.start_sec <= now_sec - _WAIT_SEC for word in words[:-1])
    return len(words) if words and words[-1].end_sec <= now_sec - _WAIT_SEC else count


def _number_of(written: Sequence[Word], words: Sequence[Word]) -> int:
    """The number of `words`, from the first, that are those `written` or stand in their place."""
    if all(one.word == other.word for one, other in zip(written, words, strict=False)):
        return min(len(written), len(words))
    return sum(word.start_sec <= written[-1].start_sec for word in words)


def _offset(segment: Segment, count: int) -> int:
    """The end of the first `count` words in the segment's text."""
    at = 0
    for word in segment.words[:count]:
        at = max(segment.text.find(word.word, at), at) + len(word.word)
    return at
