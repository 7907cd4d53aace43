"""Speech on a terminal while it is recognised."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from moulin.live_transcript import Segment, StreamUpdate


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


class GrowingText:
    """Writes text where nothing can be taken back, a pipe or a file: a line for each segment, word by word.

    The last word of the open segment is held back: it may be half a word yet, or move into the next segment. Where
    modified beam search changes an earlier word, the segment is written again on a line of its own when it is closed.
    """

    def __init__(self, to: TextIO) -> None:
        self._to = to
        self._written = ""
        """What has been written of the open segment."""
        self._lines = 0

    def write(self, update: StreamUpdate) -> None:
        for segment in update.segments:
            if segment.is_final:
                self._continue(segment.text)
                if self._written != segment.text:
                    self._to.write(f"\n{segment.text}")
                self._to.write("\n")
                self._written, self._lines = "", self._lines + 1
            else:
                self._continue(_without_last_word(segment))
        self._to.flush()

    def end(self) -> None:
        """Write an empty line where nothing was said."""
        if not self._lines:
            self._to.write("\n")
            self._to.flush()

    def _continue(self, text: str) -> None:
        if text.startswith(self._written):
            self._to.write(text[len(self._written) :])
            self._written = text


def _without_last_word(segment: Segment) -> str:
    return segment.text[: segment.text.rfind(segment.words[-1].word)].rstrip() if segment.words else ""
