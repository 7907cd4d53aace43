"""The progress of `moulin transcribe`, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from moulin.cli.bars import bars, bars_are_shown

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from moulin.audio.source import AudioSource


class TranscribingProgress:
    """A bar over all recordings, in which a long one counts by the part that is done.

    Its methods may be called from any thread, and do nothing where standard error is no terminal.
    """

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        self._progress, self._task = progress, task
        self._declared_sec: dict[AudioSource, float | None] = {}
        self._begun: dict[AudioSource, float] = {}
        self._ended = 0

    def heard(self, source: AudioSource, seconds: float) -> None:
        """`seconds` of `source` have been transcribed."""
        if self._progress is None:
            return
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
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._ended + sum(self._begun.copy().values()))


@contextmanager
def transcribing_progress(sources: Sequence[AudioSource]) -> Iterator[TranscribingProgress]:
    """A progress bar that disappears on leaving."""
    if not bars_are_shown():
        yield TranscribingProgress(None, None)
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    with bars(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()) as progress:
        what = "Transcribing" if len(sources) == 1 else f"Transcribing {len(sources)} recordings"
        yield TranscribingProgress(progress, progress.add_task(what, total=len(sources)))
