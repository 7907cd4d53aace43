"""The largest number of streams that holds, found by trying: by runs that are noisy, so each number has up to three."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

from moulin.evaluate.streaming_benchmark import Measurement

RESOLUTION = 0.03
"""The search ends when what held and what did not are this close, relatively."""

_GROWTH = 1.25
_VOTES = 2  # of at most three


def find_largest(
    targets: Sequence[str], measure: Callable[[str, int, int], Measurement], *, p95_ms: float, start: int
) -> Iterator[Measurement]:
    """Search for all targets at once, a run of each in turn, so that the machine's moods meet all of them alike.

    `measure(target, streams, seed)` makes a run; every target sees the same seeds. Yields every run;
    `largest_that_held` reads the result from them.
    """
    searches = {name: search(start) for name in targets}
    wanted = {name: next(running) for name, running in searches.items()}
    seed = 0
    while wanted:
        for name in list(wanted):
            measurement = measure(name, wanted[name], seed)
            yield measurement
            try:
                wanted[name] = searches[name].send(measurement.holds(p95_ms))
            except StopIteration:
                del wanted[name]
        seed += 1


def largest_that_held(measurements: Sequence[Measurement], p95_ms: float) -> Mapping[str, int]:
    """By target: the largest number of streams that held in most of its runs; 0 where none did."""
    votes: dict[str, dict[int, list[bool]]] = {}
    for run in measurements:
        votes.setdefault(run.target, {}).setdefault(run.streams, []).append(run.holds(p95_ms))
    return {
        target: max((streams for streams, held in runs.items() if sum(held) * 2 > len(held)), default=0)
        for target, runs in votes.items()
    }


def search(start: int) -> Generator[int, bool, int]:
    """Yields numbers to try, is sent whether each try held; returns the largest that did (0: not even one stream)."""
    low, high = 0, 0
    streams = start
    while not low or not high:
        if (yield from _held(streams)):
            low, streams = streams, max(streams + 1, round(streams * _GROWTH))
        elif streams == 1:
            return 0
        else:
            high, streams = streams, max(1, min(streams - 1, round(streams / _GROWTH)))
    while high - low > max(1, RESOLUTION * low):
        middle = (low + high) // 2
        if (yield from _held(middle)):
            low = middle
        else:
            high = middle
    return low


def _held(streams: int) -> Generator[int, bool, bool]:
    """The majority of up to three tries."""
    held = failed = 0
    while max(held, failed) < _VOTES:
        if (yield streams):
            held += 1
        else:
            failed += 1
    return held > failed
