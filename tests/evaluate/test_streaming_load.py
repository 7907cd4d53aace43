"""The load generator on a clock that jumps: known delays give known figures."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Sequence

import numpy as np
import pytest

from moulin.evaluate.measurement import Measurement, evaluate
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.streaming_load import Load, Pace, run_load
from moulin.evaluate.target_usage import TargetUsage
from tests.evaluate.fake_server import CHUNK_SAMPLES, CHUNK_SEC, FakeServer, clip
from tests.evaluate.virtual_time import run_virtually


def load(
    server: FakeServer,
    clips: Sequence[Clip],
    *,
    streams: int = 1,
    seconds: float = 10.0,
    warmup_sec: float = 2.0,
    jitter_sec: float = 0.0,
) -> Load:
    pace = Pace(CHUNK_SAMPLES, seconds, warmup_sec=warmup_sec, jitter_sec=jitter_sec)

    async def run() -> Load:
        return await run_load(server, clips, pace, streams=streams)

    return run_virtually(run())


def figures(result: Load, streams: int = 1) -> Measurement:
    return evaluate("fake", "streams", streams, result, TargetUsage(1.0, 2.0, 2**20), str.upper)


def test_chunks_are_due_one_chunk_apart_and_recordings_follow_without_a_pause() -> None:
    result = load(FakeServer(0.01), [clip(5, last_samples=1600), clip(3)], seconds=6)
    first, second, third = result.records[:3]
    begin = first.due[0] - CHUNK_SEC
    assert np.diff(first.due) == pytest.approx([CHUNK_SEC] * 3 + [0.1])
    assert second.due[0] - first.due[-1] == pytest.approx(CHUNK_SEC)
    assert third.due[0] - second.due[-1] == pytest.approx(CHUNK_SEC)
    assert [record.clip.num_samples for record in result.records[:3]] == [4 * 5120 + 1600, 3 * 5120, 4 * 5120 + 1600]
    assert begin == pytest.approx(first.due[-1] - (4 * 5120 + 1600) / 16000)


def test_every_line_begins_with_another_clip_at_another_phase_and_the_seed_decides() -> None:
    clips = [clip(5), clip(6), clip(7)]
    starts = []
    for _ in range(2):
        server = FakeServer(0.01)
        load(server, clips, streams=3, seconds=1)
        starts.append([stream.opened for stream in server.streams[:3]])
    assert starts[0] == starts[1]
    assert len(set(starts[0])) == 3
    assert max(starts[0]) - min(starts[0]) < CHUNK_SEC


def test_a_constant_delay_is_every_percentile() -> None:
    measurement = figures(load(FakeServer(0.05), [clip(8)], streams=4), 4)
    assert list(measurement.latency.ms) == pytest.approx([50.0] * len(measurement.latency))
    assert list(measurement.final.ms) == pytest.approx([50.0] * len(measurement.final))
    assert measurement.failures == ()
    assert measurement.holds(50.1)
    assert not measurement.holds(49.9)
    # 4 lines, 10 s; of the 8 chunks of 2.56 s of speech 6 are measured.
    assert len(measurement.latency) == pytest.approx(4 * 10 / 2.56 * 6, abs=4)


def test_delays_that_are_known_give_percentiles_that_are_known() -> None:
    """Chunk k of 100 takes k milliseconds: the percentiles are the numbers themselves."""
    delays = iter(range(10_000))
    server = FakeServer(lambda _: next(delays) % 100 / 1000)
    measurement = figures(load(server, [clip(1000)], seconds=CHUNK_SEC * 100, warmup_sec=CHUNK_SEC * 4))
    assert len(measurement.latency) == 100
    assert measurement.latency.percentile(50) == pytest.approx(np.percentile(range(100), 50))
    assert measurement.latency.percentile(95) == pytest.approx(np.percentile(range(100), 95))
    assert measurement.latency.percentile(100) == pytest.approx(99)


@pytest.mark.parametrize("in_order", [False, True])
def test_a_stall_is_paid_for_by_every_chunk_that_was_due_in_it(in_order: bool) -> None:
    """Coordinated omission: a generator that waits for replies would see one slow chunk instead of ten."""
    stall_from, stall_to = 1000 + 5.0, 1000 + 5.0 + 10 * CHUNK_SEC

    def delay(now: float) -> float:
        return max(0.001, stall_to - now) if now >= stall_from else 0.001

    result = load(FakeServer(delay, in_order=in_order), [clip(1000)], seconds=9.6, warmup_sec=1)
    record = result.records[0]
    due, replied = np.array(record.due), np.array(record.replied)
    stalled = (due >= stall_from) & (due < stall_to)
    assert stalled.sum() == 10
    # Each waits until the stall is over; in order, each also for the one millisecond that those before it take.
    queue = 0.001 * np.arange(10) if in_order else 0
    assert replied[stalled] - due[stalled] == pytest.approx(stall_to - due[stalled] + queue, abs=1e-6)
    assert figures(result).latency.percentile(100) > 2900


def test_a_server_that_cannot_keep_up_does_not_hold_however_short_its_first_latencies() -> None:
    """80 ms at the beginning, 2 ms more a chunk: the window's 95th percentile hides what its end shows."""
    calls = iter(range(10_000))
    measurement = figures(load(FakeServer(lambda _: 0.08 + 0.002 * next(calls)), [clip(1000)], seconds=32))
    assert measurement.late_p95_ms > measurement.p95_ms
    limit = (measurement.late_p95_ms + measurement.p95_ms) / 2
    assert not measurement.holds(limit)
    assert measurement.holds(measurement.late_p95_ms + 1)


def test_warm_up_is_not_measured() -> None:
    measurement = figures(load(FakeServer(lambda now: 1.0 if now < 1000 + 1.5 else 0.01), [clip(1000)], warmup_sec=3))
    assert measurement.latency.percentile(100) == pytest.approx(10)


def test_failures_are_counted_and_the_line_goes_on_with_the_next_recording() -> None:
    server = FakeServer(0.01, fail_at=2)
    result = load(server, [clip(5)], seconds=8, warmup_sec=0.32)
    measurement = figures(result)
    whole = [record for record in result.records if not math.isnan(record.due[2])]
    assert len(whole) >= 4
    assert all(record.failure == "no more room" and record.text is None for record in whole)
    assert all(stream.received == [0, 1, 2] for stream in server.streams[: len(whole)])
    assert measurement.failures == ("no more room",) * len(whole)
    assert not measurement.holds(1000)
    starts = [stream.opened for stream in server.streams]
    assert np.diff(starts) == pytest.approx([5 * CHUNK_SEC] * (len(starts) - 1))


def test_what_is_never_answered_is_a_failure_and_the_run_ends_all_the_same() -> None:
    measurement = figures(load(FakeServer(0.01, never_answer=3), [clip(6)], seconds=6))
    assert set(measurement.failures) == {"no reply in time"}
    assert not measurement.holds(1000)
    assert measurement.latency.percentile(100) == pytest.approx(10)


def test_replies_after_the_window_still_count_for_chunks_that_were_due_in_it() -> None:
    measurement = figures(load(FakeServer(1.5), [clip(1000)], seconds=6))
    assert measurement.failures == ()
    assert measurement.latency.percentile(50) == pytest.approx(1500)


def test_a_text_only_counts_when_its_stream_has_ended() -> None:
    result = load(FakeServer(0.01), [clip(5, text="ONE TWO"), clip(6, text="SIX")], streams=2, seconds=5)
    measurement = figures(result, 2)
    finished = [record for record in result.records if record.text is not None]
    assert measurement.finished == len(finished) > 0
    assert measurement.word_errors.words == sum(len(record.clip.text.split()) for record in finished)
    assert measurement.word_errors.errors == 0


def test_unfinished_streams_are_abandoned_and_no_others() -> None:
    server = FakeServer(0.01)
    result = load(server, [clip(5)], streams=3, seconds=3)
    for record, stream in zip(result.records, server.streams, strict=True):
        assert stream.abandoned == (record.text is None)
    assert sum(stream.abandoned for stream in server.streams) == 3


def test_cancelling_abandons_the_streams_and_leaves_the_collector_as_it_was() -> None:
    server = FakeServer(0.01)

    async def cancelled() -> None:
        task = asyncio.create_task(run_load(server, [clip(50)], Pace(CHUNK_SAMPLES, 100, warmup_sec=1), streams=2))
        await asyncio.sleep(5)
        assert not gc.isenabled()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtually(cancelled())
    assert gc.isenabled()
    assert [stream.abandoned for stream in server.streams] == [True, True]


def test_the_window_is_known_beforehand_and_lines_may_be_shared() -> None:
    """Two generators with half of the lines each speak at the same times as one with all."""
    pace = Pace(CHUNK_SAMPLES, 5.0, warmup_sec=1.0)

    async def part(lines: Sequence[int] | None) -> Load:
        begin = asyncio.get_running_loop().time() + 2
        result = await run_load(FakeServer(0.01), [clip(50), clip(7)], pace, streams=4, lines=lines, begin=begin)
        assert (result.first_sec, result.end_sec) == pace.window(begin)
        return result

    whole, even, odd = (run_virtually(part(lines)) for lines in (None, (0, 2), (1, 3)))
    assert sorted(it.begin for it in whole.records) == sorted(it.begin for it in [*even.records, *odd.records])
    assert whole.end_sec - whole.first_sec == pytest.approx(5)


def test_jitter_delays_chunks_without_reordering_them_and_latency_counts_from_their_arrival() -> None:
    result = load(FakeServer(0.05), [clip(40)], seconds=15, jitter_sec=0.5)
    record = result.records[0]
    due = np.array(record.due)
    spoken = record.begin + CHUNK_SEC * np.arange(1, 41)
    delay = due - spoken
    assert (delay >= -1e-9).all()
    assert (delay < 0.5 + 1e-9).all()
    assert delay.std() > 0.05
    assert (np.diff(due) >= 0).all()
    assert figures(result).latency.percentile(100) == pytest.approx(50)
    # The speaker is not slowed down by the network.
    assert result.records[1].begin == pytest.approx(record.begin + 40 * CHUNK_SEC)


def test_cpu_time_is_divided_among_server_generator_and_others() -> None:
    result = load(FakeServer(0.01), [clip(5)], seconds=10)
    measurement = figures(result)
    assert measurement.usage.server_cpu_sec == 1.0
    assert measurement.others_cpu_sec == pytest.approx(1.0 - measurement.generator_cpu_sec)
    assert measurement.figures().latency_ms.p95 == 10.0
    assert measurement.figures().cpu_ms_of_second == pytest.approx(
        100.0
    )  # one core second in ten seconds of one stream
