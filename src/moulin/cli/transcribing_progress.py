"""The progress of `moulin transcribe`: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from moulin.cli.bars import bars, bars_are_shown
from moulin.cli.messages import say

if TYPE_CHECKING:
    from moulin.audio.source import AudioSource

_LINE_EVERY_SEC = 30.0


class TranscribingProgress:
    """How many recordings are done, of which a long one counts by its part.

    Its methods may be called from any thread.
    """

    def __init__(self, show: Callable[[float], object]) -> None:
        """`show` is called with that number."""
        self._show_done = show
        self._declared_sec: dict[AudioSource, float | None] = {}
        self._begun: dict[AudioSource, float] = {}
        self._ended = 0

    def heard(self, source: AudioSource, seconds: float) -> None:
        """`seconds` of `source` have been transcribed."""
        if source not in self._declared_sec:
            self._declared_sec[source] = source.declared_sec()
        declared_sec = self._declared_sec[source]
        # A header may declare too short a duration, and a recording is not done before its end.
        self._begun[source] = min(seconds / declared_sec, 0.99) if declared_sec else 0.0
        self._show()

    def ended(self, source: AudioSource) -> None:
        self._begun.pop(source, None)
        self._ended += 1
        self._show()

    def _show(self) -> None:
        self._show_done(self._ended + sum(self._begun.copy().values()))


@contextmanager
def transcribing_progress(sources: Sequence[AudioSource]) -> Iterator[TranscribingProgress]:
    """A progress bar that disappears on leaving, or lines."""
    what = "Transcribing" if len(sources) == 1 else f"Transcribing {len(sources)} recordings"
    if not bars_are_shown():
        yield TranscribingProgress(_lines(what, len(sources)))
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    with bars(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task(what, total=len(sources))
        yield TranscribingProgress(lambda done: progress.update(task, completed=done))


def _lines(what: str, count: int) -> Callable[[float], None]:
    """Says how far all is, not before `_LINE_EVERY_SEC` have gone since the start or the line before."""
    following = time.monotonic() + _LINE_EVERY_SEC

    def show(done: float) -> None:
        nonlocal following
        if time.monotonic() >= following:
            following = time.monotonic() + _LINE_EVERY_SEC
            say(f"{what}: {done / count:.0%}")

    return show
