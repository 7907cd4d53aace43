"""The search on machines that are known to the stream."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from moulin.evaluate.largest_load import RESOLUTION, find_largest, largest_that_held, search
from moulin.evaluate.streaming_benchmark import Measurement
from moulin.evaluate.wer import WordErrors


def measurement(target: str, streams: int, p95_ms: float, *, failures: tuple[str, ...] = ()) -> Measurement:
    percentiles = dict.fromkeys((50, 90, 95, 99, 100), p95_ms)
    return Measurement(
        target=target,
        streams=streams,
        seconds=20,
        latency_ms=percentiles,
        late_p95_ms=p95_ms,
        final_ms=percentiles,
        chunks=1000,
        failures=failures,
        streams_finished=10,
        word_errors=WordErrors(),
        server_cpu_sec=0,
        generator_cpu_sec=0,
        others_cpu_sec=0,
        generator_late_ms=0,
        server_memory_mib=0,
        cores=2,
    )


def answer(bears: Callable[[int], bool], start: int) -> tuple[int, list[int]]:
    running, tried = search(start), []
    try:
        streams = next(running)
        while True:
            tried.append(streams)
            streams = running.send(bears(streams))
    except StopIteration as done:
        return done.value, tried


@pytest.mark.parametrize("start", [1, 7, 64, 500])
@pytest.mark.parametrize("capacity", [1, 2, 3, 17, 48, 100, 131, 999])
def test_the_capacity_is_found_from_any_start(capacity: int, start: int) -> None:
    found, tried = answer(lambda streams: streams <= capacity, start)
    assert found <= capacity <= found + max(1, math.ceil(RESOLUTION * found))
    assert len(tried) < 80


def test_a_machine_that_bears_not_even_one_stream() -> None:
    found, tried = answer(lambda _: False, 4)
    assert found == 0
    assert tried[-1] == 1


def test_an_accident_in_three_runs_does_not_decide() -> None:
    runs = itertools.count()
    found, _ = answer(lambda streams: streams <= 100 and next(runs) % 3 != 0, 64)
    assert 97 <= found <= 100


def test_targets_take_turns_and_see_the_same_seeds() -> None:
    calls: list[tuple[str, int]] = []

    def measure(name: str, streams: int, seed: int) -> Measurement:
        calls.append((name, seed))
        return measurement(name, streams, 100 if streams <= {"ours": 120, "peer": 100}[name] else 900)

    runs = list(find_largest(["ours", "peer"], measure, p95_ms=320, start=64))
    assert calls[:6] == [("ours", 0), ("peer", 0), ("ours", 1), ("peer", 1), ("ours", 2), ("peer", 2)]
    assert len(runs) == len(calls)
    largest = largest_that_held(runs, 320)
    assert 116 <= largest["ours"] <= 120
    assert 97 <= largest["peer"] <= 100


def test_the_result_is_read_from_the_runs_so_that_an_interrupted_search_has_one() -> None:
    runs = [
        measurement("ours", 64, 50),
        measurement("ours", 80, 50),
        measurement("ours", 80, 500),
        measurement("ours", 80, 60),
        measurement("ours", 90, 50),
        measurement("ours", 90, 500),
        measurement("peer", 64, 50, failures=("closed",)),
    ]
    assert largest_that_held(runs, 320) == {"ours": 80, "peer": 0}
