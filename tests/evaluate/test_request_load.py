"""Closed and open loops on a clock that jumps: what is sent when, and what is made of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from moulin.errors import OptionsError
from moulin.evaluate.connection import Record
from moulin.evaluate.measurement import Measurement, evaluate
from moulin.evaluate.request_load import Arrivals, Workers, run_once, run_requests
from moulin.evaluate.run import record_line
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.streaming_load import Load
from moulin.evaluate.target_usage import TargetUsage
from tests.evaluate.fake_server import FakeServer
from tests.evaluate.virtual_time import run_virtually


def recording(name: str, *, seconds: float = 2.0, text: str = "ONE TWO") -> Clip:
    samples = np.zeros(round(seconds * 16000), dtype=np.float32)
    return Clip(text, (samples,), samples[:0], (1,), (True,), name, whole=True)


CLIPS = [recording("a"), recording("b", seconds=4.0), recording("c")]


def load(
    server: FakeServer,
    shape: Workers | Arrivals,
    *,
    seconds: float = 10.0,
    warmup_sec: float = 2.0,
    seed: int = 0,
    grace_sec: float = 5.0,
) -> Load:
    async def run() -> Load:
        return await run_requests(
            server, CLIPS, shape, seconds=seconds, warmup_sec=warmup_sec, seed=seed, grace_sec=grace_sec
        )

    return run_virtually(run())


def figures(result: Load) -> Measurement:
    return evaluate("fake", "workers", 1, result, TargetUsage(1.0, 2.0, 2**20), str.upper)


def test_a_closed_loop_sends_the_next_recording_when_the_last_is_answered() -> None:
    server = FakeServer(0.5)
    result = load(server, Workers(2))
    begins = sorted(record.begin for record in result.records)
    assert len(begins) == pytest.approx(2 * 12 / 0.5, abs=2)
    assert np.diff(begins[::2]) == pytest.approx([0.5] * (len(begins) // 2 - 1))
    measurement = figures(result)
    assert measurement.latency.percentile(95) == pytest.approx(500)
    assert measurement.failures == ()


def test_every_recording_comes_equally_often_and_the_seed_decides_the_order() -> None:
    ids = [[record.clip.id for record in load(FakeServer(0.5), Workers(1), seed=seed).records] for seed in (0, 0, 5)]
    assert ids[0] == ids[1] != ids[2]
    counts = [ids[0].count(name) for name in "abc"]
    assert max(counts) - min(counts) <= 1


def test_throughput_is_the_audio_that_was_answered_within_the_window() -> None:
    """One worker, half a second a recording of 8/3 s on average."""
    measurement = figures(load(FakeServer(0.5), Workers(1), seconds=30))
    assert measurement.audio_sec_a_sec == pytest.approx(2 * 8 / 3, rel=0.03)


def test_an_open_loop_sends_whether_or_not_replies_come() -> None:
    result = load(FakeServer(3.0), Arrivals(4, poisson=False))
    begins = sorted(record.begin for record in result.records)
    assert np.diff(begins) == pytest.approx([0.25] * (len(begins) - 1))
    assert figures(result).latency.percentile(50) == pytest.approx(3000)


def test_an_open_loop_ends_with_the_window() -> None:
    """Also where replies are waited for long after it."""
    server = FakeServer(4.0)
    result = load(server, Arrivals(4, poisson=False))
    assert max(record.begin for record in result.records) <= result.end_sec
    assert len(server.streams) == len(result.records) == 4 * 12 - 1  # the one at the very end is not sent
    assert all(record.text for record in result.records)


def test_an_open_loop_pays_for_a_server_that_takes_one_at_a_time() -> None:
    """Service takes 0.3 s, a request comes every 0.25 s: the queue grows by a fifth of the time that passes."""
    free_at = 0.0

    def delay(now: float) -> float:
        nonlocal free_at
        free_at = max(now, free_at) + 0.3
        return free_at - now

    measurement = figures(load(FakeServer(delay), Arrivals(4, poisson=False), seconds=20, warmup_sec=0.001))
    assert measurement.latency.percentile(100) == pytest.approx(300 + 20 * 1000 / 5, rel=0.1)
    assert measurement.late_p95_ms > measurement.p95_ms * 0.99
    assert not measurement.holds(measurement.latency.percentile(90))


def test_poisson_arrivals_have_the_rate_and_are_not_even() -> None:
    gaps = np.array(list(itertools.islice(Arrivals(5).gaps(3), 20_000)))
    assert gaps.mean() == pytest.approx(0.2, rel=0.03)
    assert gaps.std() == pytest.approx(0.2, rel=0.05)
    assert list(itertools.islice(Arrivals(5).gaps(3), 5)) == gaps[:5].tolist()


def test_failures_are_counted_kept_and_do_not_stop_a_worker() -> None:
    result = load(FakeServer(0.5, fail_at=0), Workers(1))
    measurement = figures(result)
    assert set(measurement.failures) == {"no more room"}
    assert len(measurement.failures) == len(result.records) > 20
    assert len(measurement.latency) == 0
    assert measurement.figures().latency_ms.p95 is None
    assert record_line(result.records[0], result.first_sec)["failure"] == "no more room"


def test_what_is_never_answered_is_one_failure_each() -> None:
    result = load(FakeServer(0.5, never_answer=0), Workers(3))
    assert figures(result).failures == ()  # sent in the warm-up, they are no part of the window
    result = load(FakeServer(0.5, never_answer=0), Arrivals(1, poisson=False))
    assert figures(result).failures == ("no reply in time",) * 10


def test_figures_by_recording() -> None:
    result = load(FakeServer(0.5), Workers(1), seconds=30)
    wrong = replace(result, records=[replaced(record, "ONE") for record in result.records])
    by_id = figures(wrong).utterances
    assert set(by_id) == {"a", "b", "c"}
    assert by_id["a"].errors == by_id["a"].times
    assert by_id["a"].final_ms == pytest.approx(500)
    assert by_id["b"].errors == 0


def replaced(record: Record, text: str) -> Record:
    """As if the recordings called a had been heard as `text`."""
    if record.clip.id == "a":
        record.text = text
    return record


def test_once_takes_every_clip_once_with_so_many_under_way() -> None:
    under_way: list[int] = []
    server = FakeServer(0.5)

    async def run(clips: Sequence[Clip]) -> list[Record]:
        def on_end(_: Record) -> None:
            under_way.append(sum(stream._record.text is None for stream in server.streams))

        return await run_once(server, clips, 4, on_end=on_end)

    clips = [recording(str(number)) for number in range(10)]
    records = run_virtually(run(clips))
    assert [record.clip.id for record in records] == [clip.id for clip in clips]
    assert all(record.text == "ONE TWO" for record in records)
    assert max(under_way) == 3
    assert run_virtually(run([])) == []


def test_once_cancelled_keeps_what_there_is_and_abandons_the_rest() -> None:
    server, ended = FakeServer(0.5), list[Record]()

    async def run() -> None:
        task = asyncio.create_task(run_once(server, itertools.cycle(CLIPS), 2, on_end=ended.append))
        await asyncio.sleep(1.6)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtually(run())
    assert len(ended) == 6
    assert [stream.abandoned for stream in server.streams] == [False] * 6 + [True] * 2


@pytest.mark.parametrize("make", [lambda: Workers(0), lambda: Arrivals(0), lambda: Arrivals(float("nan"))])
def test_loads_that_are_none(make: type) -> None:
    with pytest.raises(OptionsError, match="Expected"):
        make()


def test_a_record_keeps_what_changed_and_ends_once() -> None:
    ended: list[str] = []
    record = Record(recording("a"), on_end=lambda: ended.append("once"))
    for now, text in ((1.0, ""), (2.0, "ONE"), (3.0, "ONE"), (4.0, "ONE TWO")):
        record.heard(text, now)
    record.finish("ONE TWO")
    record.fail("too late")
    assert record.partials == [(2.0, "ONE"), (4.0, "ONE TWO")]
    assert (record.text, record.failure, ended) == ("ONE TWO", None, ["once"])


def test_words_that_were_taken_back_are_counted() -> None:
    record = Record(recording("a"), begin=1000.0)
    record.due, record.replied = [1000.0], [1001.0]
    for now, text in ((1000.4, "ONE"), (1000.5, "ONE TO"), (1000.6, "ONE TWO"), (1000.8, "WON TWO")):
        record.heard(text, now)
    record.finish("WON TWO")
    measurement = figures(Load([record], 1000.0, 1010.0, 0.0, 0.0, []))
    assert measurement.revised_words == 1 + 2  # TO; ONE and what followed it
    assert measurement.partials == 4
    assert measurement.first_text.ms == pytest.approx([400.0])
