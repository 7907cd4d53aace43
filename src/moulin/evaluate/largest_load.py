"""The largest load that holds, found by trying loads with noisy runs, up to three runs a load.

A run that stays under half the limit decides by itself: noise makes runs slower, not faster. A run that failed while
other processes took the machine is ignored, and made again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from enum import Enum

from moulin.evaluate.measurement import Measurement
from moulin.evaluate.results.live_streams import RESOLUTION
from moulin.evaluate.run import Run

_GROWTH = 1.25
_VOTES = 2  # of at most three
_MOST_DISTURBED = 5  # for a machine that is never quiet


def find_largest(
    targets: Sequence[str], measure: Callable[[str, int, int], Run], *, p95_ms: float, start: int
) -> Iterator[Run]:
    """Search for all targets at once, a run of each in turn, so that other load on the machine affects all alike.

    `measure(target, load, seed)` makes a run; every target sees the same seeds. Yields every run;
    `largest_that_held` reads the result from them.
    """
    searches = {name: search(start) for name in targets}
    wanted = {name: next(running) for name, running in searches.items()}
    seed = 0
    while wanted:
        for name in list(wanted):
            run = measure(name, wanted[name], seed)
            yield run
            try:
                wanted[name] = searches[name].send(verdict(run.measurement, p95_ms))
            except StopIteration:
                del wanted[name]
        seed += 1


def largest_that_held(measurements: Sequence[Measurement], p95_ms: float) -> Mapping[str, float]:
    """The largest load by target that clearly held in one run, or held in most of its runs; 0 where none did."""
    verdicts: dict[str, dict[float, list[Verdict]]] = {}
    for run in measurements:
        verdicts.setdefault(run.target, {}).setdefault(run.load, []).append(verdict(run, p95_ms))
    return {
        target: max((load for load, found in loads.items() if _holds(found)), default=0)
        for target, loads in verdicts.items()
    }


def _holds(found: Sequence[Verdict]) -> bool:
    said = [it for it in found if it is not Verdict.DISTURBED]
    return Verdict.CLEARLY_HELD in said or said.count(Verdict.HELD) * 2 > len(said)


class Verdict(Enum):
    """The outcome of a run for its load."""

    CLEARLY_HELD = "clearly held"
    HELD = "held"
    FAILED = "failed"
    DISTURBED = "failed, while others took the machine"


def verdict(run: Measurement, p95_ms: float) -> Verdict:
    if run.holds(p95_ms / 2):
        return Verdict.CLEARLY_HELD
    if run.holds(p95_ms):
        return Verdict.HELD
    return Verdict.DISTURBED if run.disturbed else Verdict.FAILED


def search(start: int) -> Generator[int, Verdict, int]:
    """Yields loads to try, is sent the verdict of each; returns the largest that held (0: not even the least)."""
    low, high = 0, 0
    load = start
    while not low or not high:
        if (yield from _held(load)):
            low, load = load, max(load + 1, round(load * _GROWTH))
        elif load == 1:
            return 0
        else:
            high, load = load, max(1, min(load - 1, round(load / _GROWTH)))
    while high - low > max(1, RESOLUTION * low):
        middle = (low + high) // 2
        if (yield from _held(middle)):
            low = middle
        else:
            high = middle
    return low


def halved(run: Callable[[int], bool], lowest: int, highest: int) -> Iterator[tuple[int, bool]]:
    """Try loads from `lowest` to `highest` where one run decides: doubled until one does not hold, then halfway between
    the best and the worst, to the RESOLUTION. Yields each load with the result of `run`, so that a caller that is out
    of time can stop."""
    low, high, load = 0, highest + 1, lowest
    while load > low and load < high:
        held = run(load)
        yield load, held
        if held:
            low = load
            doubling = high > highest
            load = min(2 * load, highest) if doubling else (low + high) // 2
        else:
            high = load
            load = (low + high) // 2
        if low and high - low <= RESOLUTION * low:
            return
        if not low and load < lowest / 8:
            return


def _held(load: int) -> Generator[int, Verdict, bool]:
    """The majority of up to three tries, unless one is clear."""
    held = failed = disturbed = 0
    while max(held, failed) < _VOTES and disturbed < _MOST_DISTURBED:
        match (yield load):
            case Verdict.CLEARLY_HELD:
                return True
            case Verdict.HELD:
                held += 1
            case Verdict.FAILED:
                failed += 1
            case Verdict.DISTURBED:
                disturbed += 1
    return held > failed
