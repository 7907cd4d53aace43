"""The search on machines that are known to the stream."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from moulin.evaluate.largest_load import Verdict, find_largest, halved, largest_that_held, search, verdict
from moulin.evaluate.latencies import Latencies
from moulin.evaluate.measurement import Measurement
from moulin.evaluate.results.live_streams import RESOLUTION
from moulin.evaluate.run import Run
from moulin.evaluate.target_usage import TargetUsage
from moulin.evaluate.wer import WordErrors


def measurement(target: str, streams: int, p95_ms: float, *, failures: tuple[str, ...] = ()) -> Measurement:
    constant = Latencies(np.linspace(0, 20, 100), np.full(100, p95_ms))
    return Measurement(
        target=target,
        unit="streams",
        load=streams,
        seconds=20,
        latency=constant,
        final=constant,
        first_text=constant,
        failures=failures,
        finished=10,
        audio_sec_a_sec=streams,
        word_errors=WordErrors(),
        character_errors=WordErrors(),
        partials=0,
        revised_words=0,
        usage=TargetUsage(0.0, 0.0, 0),
        generator_cpu_sec=0,
        generator_late_ms=0,
        cores=2,
    )


def answer(bears: Callable[[int], bool], start: int) -> tuple[int, list[int]]:
    running, tried = search(start), []
    try:
        streams = next(running)
        while True:
            tried.append(streams)
            streams = running.send(Verdict.HELD if bears(streams) else Verdict.FAILED)
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

    def measure(name: str, streams: int, seed: int) -> Run:
        calls.append((name, seed))
        p95_ms = 200 if streams <= {"ours": 120, "peer": 100}[name] else 900
        return Run(measurement(name, streams, p95_ms), [], 0.0)

    runs = list(find_largest(["ours", "peer"], measure, p95_ms=320, start=64))
    assert calls[:6] == [("ours", 0), ("peer", 0), ("ours", 1), ("peer", 1), ("ours", 2), ("peer", 2)]
    assert len(runs) == len(calls)
    largest = largest_that_held([run.measurement for run in runs], 320)
    assert 116 <= largest["ours"] <= 120
    assert 97 <= largest["peer"] <= 100


def test_the_result_is_read_from_the_runs_so_that_an_interrupted_search_has_one() -> None:
    runs = [
        measurement("ours", 64, 250),
        measurement("ours", 80, 250),
        measurement("ours", 80, 500),
        measurement("ours", 80, 260),
        measurement("ours", 90, 250),
        measurement("ours", 90, 500),
        measurement("peer", 64, 50, failures=("closed",)),
    ]
    assert largest_that_held(runs, 320) == {"ours": 80, "peer": 0}


def test_one_run_far_under_the_limit_is_enough() -> None:
    running = search(100)
    first = next(running)
    said = (Verdict.CLEARLY_HELD, Verdict.FAILED, Verdict.FAILED, Verdict.HELD, Verdict.HELD)
    tried = [first, *map(running.send, said)]
    assert tried == [100, 125, 125, 112, 112, 118]
    assert largest_that_held([measurement("ours", 100, 150), measurement("ours", 100, 900)], 320) == {"ours": 100}


def test_what_failed_while_others_took_the_machine_is_no_vote_but_what_held_is() -> None:
    running = search(100)
    first = next(running)
    said = (Verdict.DISTURBED, Verdict.HELD, Verdict.DISTURBED, Verdict.HELD)
    assert [first, *map(running.send, said)] == [100, 100, 100, 100, 125]
    never_quiet = [running.send(Verdict.DISTURBED) for _ in range(5)]
    assert never_quiet == [125, 125, 125, 125, 112]
    disturbed = replace(measurement("ours", 100, 900), usage=TargetUsage(0.0, 20.0, 0))
    assert disturbed.disturbed
    assert verdict(disturbed, 320) is Verdict.DISTURBED
    assert largest_that_held([disturbed, measurement("ours", 100, 300)], 320) == {"ours": 100}


@pytest.mark.parametrize("limit", [0, 900, 2000, 2001, 17_000, 41_234, 59_999, 60_000, 80_000])
def test_where_one_run_decides_loads_are_doubled_and_halved(limit: int) -> None:
    tried = list(halved(lambda load: load <= limit, 2000, 60_000))
    found = max((load for load, held in tried if held), default=0)
    assert len({load for load, _ in tried}) == len(tried) <= 11
    assert all(load <= 60_000 for load, _ in tried)
    if limit >= 60_000:
        assert found == 60_000
    elif limit:
        assert 0.96 * limit <= found <= limit
    else:
        assert found == 0
