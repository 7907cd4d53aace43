"""The largest number of real-time streams that a recognizer in this process bears under a latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from moulin.evaluate.largest_load import halved
from moulin.evaluate.results.live_streams import CapacityRun
from moulin.evaluate.stream_capacity import PacedStreams
from moulin.evaluate.stream_engines import memory_in_use

_SAMPLED = 100


@dataclass(frozen=True, slots=True)
class Search:
    """A search from `lowest` to `highest` streams, `seconds` measured of each run; no run begins after `budget_sec`."""

    lowest: int
    highest: int
    p95_ms: float = 160.0
    seconds: float = 6.0
    budget_sec: float = 100.0


def search_capacity(
    streams: PacedStreams, search: Search, device: str, say: Callable[[str], None] = lambda _: None
) -> Iterator[CapacityRun]:
    """Every run of the search, until it is done or out of time, which `say` is told."""
    deadline = time.monotonic() + search.budget_sec
    runs: list[CapacityRun] = []

    def run(count: int) -> bool:
        say(f"{count} streams …")
        measured = streams.run(count, seconds=search.seconds, p95_ms=search.p95_ms)
        runs.append(replace(measured, characters=_characters(streams), memory_mib=memory_in_use(device)))
        return measured.held

    for _ in halved(run, search.lowest, search.highest):
        yield runs[-1]
        if time.monotonic() > deadline:
            say("out of time before the search was done")
            return


def _characters(streams: PacedStreams) -> float:
    """The length of a stream's text so far, the mean of some streams."""
    some = streams.streams[:_SAMPLED]
    return round(sum(len(streams.recognizer.text(stream)) for stream in some) / len(some), 1)
