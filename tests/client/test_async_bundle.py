"""`AsyncStreamBundle` against `LaneService` in this process, without Triton: what is refused, lost and far ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from moulin.audio.waveform import in_16_bits
from moulin.client import AsyncStreamBundle
from moulin.client.lane import MAX_AHEAD_SAMPLES, MAX_SAMPLES
from moulin.errors import RequestRefused, ServerUnavailable
from tests.triton_repo.fake_stream_runner import Clock, FakeStreamRunner

from .served_lanes import Served, alone

CAPACITY = 4
AUDIO = in_16_bits(np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32))
_PATIENCE_SEC = 300.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runner() -> FakeStreamRunner:
    return FakeStreamRunner(CAPACITY)


@pytest.fixture
def served(clock: Clock, runner: FakeStreamRunner) -> Iterator[Served]:
    service = Served(clock, runner)
    yield service
    service.close()


def run(served: Served, script: Callable[[AsyncStreamBundle], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(_PATIENCE_SEC), AsyncStreamBundle(served.infer, 1) as bundle:
            await script(bundle)

    asyncio.run(bounded())


def test_options_that_are_refused_take_no_audio_with_them(served: Served) -> None:
    async def script(bundle: AsyncStreamBundle) -> None:
        stream = await bundle.open()
        await stream.send(AUDIO[:5000])
        stream.change_options(nonsense=1)
        with pytest.raises(RequestRefused, match="nonsense"):
            await stream.send(AUDIO[5000:])
        assert (await stream.finish()).text == alone(AUDIO)

    run(served, script)


def test_a_lane_that_the_server_has_closed_is_no_fault_of_a_streams_request(served: Served, clock: Clock) -> None:
    async def script(bundle: AsyncStreamBundle) -> None:
        stream = await bundle.open()
        await stream.send(AUDIO[:5000])
        clock.now += 4.0
        served.lanes.sweep()
        with pytest.raises(ServerUnavailable, match=r"The server has closed the lane .* is not open"):
            await stream.send(AUDIO[5000:])
        # The server answers, so that nobody need wait for the next lane.
        assert (await (await bundle.open()).finish(AUDIO)).text == alone(AUDIO)

    run(served, script)


def test_audio_far_ahead_waits_here(served: Served, runner: FakeStreamRunner) -> None:
    long = np.tile(AUDIO, 2 * MAX_AHEAD_SAMPLES // len(AUDIO))
    news = asyncio.Event()

    async def script(bundle: AsyncStreamBundle) -> None:
        stream, other = await bundle.open(), await bundle.open()
        stream.push(long)
        stream.on_news = news.set
        runner.hold()
        try:
            for _ in range(20):
                news.clear()
                other.push(AUDIO[:10])
                await other.settled()
            assert sum(served.sizes) <= MAX_AHEAD_SAMPLES + MAX_SAMPLES + 20 * 10
        finally:
            runner.release()
        await stream.settled()
        assert max(served.sizes) <= MAX_SAMPLES + 10
        assert (await stream.finish()).text == alone(long)
        await other.close()

    run(served, script)


def test_a_stream_that_is_ahead_can_be_closed(served: Served, runner: FakeStreamRunner) -> None:
    async def script(bundle: AsyncStreamBundle) -> None:
        stream, other = await bundle.open(), await bundle.open()
        runner.hold()
        try:
            stream.push(np.tile(AUDIO, 2 * MAX_AHEAD_SAMPLES // len(AUDIO)))
            await other.send(AUDIO[:10])
            await stream.close()
            await other.send(AUDIO[:10])
            assert [lane.streams for lane in bundle.lanes] == [{2: other.lane_stream}]
        finally:
            runner.release()

    run(served, script)


def test_another_lanes_reply_to_the_same_bundle_gives_nobody_its_words(served: Served) -> None:
    other_audio = AUDIO[::-1].copy()

    async def script(bundle: AsyncStreamBundle) -> None:
        async with AsyncStreamBundle(served.infer, 1) as other:
            streams = [await bundle.open(), await other.open()]
            served.swaps = 2
            for stream, audio in zip(streams, (AUDIO, other_audio), strict=True):
                stream.push(audio, end=True)
            for stream in streams:
                with pytest.raises(ServerUnavailable, match="mixed up replies"):
                    await stream.settled()
                assert stream.live.text == ""

    run(served, script)
