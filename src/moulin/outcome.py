"""What became of a recording: its transcript, or the error in its place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from moulin.audio.source import AudioSource
from moulin.errors import MoulinError
from moulin.transcript import Transcript

OnProgress = Callable[[AudioSource, float], None]
"""A callback, called from any thread with the seconds of a recording transcribed so far."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A recording and its transcript, or the error in its place."""

    source: AudioSource
    result: Transcript | MoulinError


def unheard(_source: AudioSource, _seconds: float) -> None:
    """No progress is shown."""


def in_order(sources: Sequence[AudioSource], one: Callable[[AudioSource], Outcome], jobs: int) -> Iterator[Outcome]:
    """What `one` makes of each of `sources`, in their order, `jobs` of them at once and as many ahead.

    Raises what `one` raises; those that have not begun are dropped then, and when the iterator is closed.
    """
    with ThreadPoolExecutor(jobs) as workers:
        waiting = iter(sources)
        outcomes: deque[Future[Outcome]] = deque(workers.submit(one, source) for source in islice(waiting, 2 * jobs))
        try:
            while outcomes:
                yield outcomes.popleft().result()
                outcomes.extend(workers.submit(one, source) for source in islice(waiting, 1))
        finally:
            workers.shutdown(cancel_futures=True)
