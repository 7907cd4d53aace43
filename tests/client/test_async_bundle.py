"""`AsyncStreamBundle` against `LaneService` in this process, without Triton: what is refused, lost and far ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

from moulin.audio.waveform import as_floats, in_16_bits
from moulin.client import AsyncStreamBundle
from moulin.client.lane import MAX_AHEAD_SAMPLES, MAX_SAMPLES
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import MoulinError, RequestRefused, ServerUnavailable
from moulin.triton_repo.lane_service import LaneRequest, LaneService
from moulin.triton_repo.streaming_service import StreamingService
from tests.triton_repo.fake_stream_runner import SPEC, Clock, FakeStreamRunner, heard_alone

CAPACITY = 4
AUDIO = in_16_bits(np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32))
_PATIENCE_SEC = 300.0


class Result:
    """An `InferResult` of these outputs."""

    def __init__(self, outputs: dict[str, Any]) -> None:
        self._outputs = outputs

    def as_numpy(self, name: str) -> Any:
        return self._outputs.get(name)


class Served:
    """A server of lanes: `infer` is what `AsyncStreamBundle` calls."""

    def __init__(self, clock: Clock, runner: FakeStreamRunner) -> None:
        self.unary = StreamingService(StreamRecognizer(SPEC, HostStepper(SPEC, runner)), clock=clock)
        self.lanes = LaneService(self.unary.scheduler.recognizer, self.unary.scheduler, instance="a", clock=clock)
        self.sizes: list[int] = []
        """Samples of each bundle."""
        self.swaps = 0
        """How many of the next bundles get the reply to another one."""
        self._held: tuple[Result, asyncio.Future[Result]] | None = None

    async def infer(self, *, inputs: list[Any], sequence_id: int, **flags: Any) -> Result:
        tensors = {item.name(): _array(item) for item in inputs}
        self.sizes.append(tensors["CHUNKS"].size if "CHUNKS" in tensors else 0)
        request = LaneRequest(sequence_id, flags["sequence_start"], flags["sequence_end"], tensors)
        try:
            result = Result(self.lanes.submit(request).tensors())
        except MoulinError as error:
            raise RequestRefused(error.message, hint=error.hint) from None
        return await self._swap(result) if self.swaps else result

    async def _swap(self, result: Result) -> Result:
        self.swaps -= 1
        if self._held is not None:
            (held, waiting), self._held = self._held, None
            waiting.set_result(result)
            return held
        waiting = asyncio.get_running_loop().create_future()
        self._held = result, waiting
        return await waiting

    def close(self) -> None:
        self.unary.scheduler.close()
        self.lanes.close()
        assert self.unary.num_open == 0
        self.unary.close()


def _array(item: Any) -> Any:
    raw, datatype = item._get_content(), item.datatype()
    flat = deserialize_bytes_tensor(raw) if datatype == "BYTES" else np.frombuffer(raw, triton_to_np_dtype(datatype))
    return flat.reshape(item.shape())


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


def alone(samples: Any) -> str:
    recognizer = StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner(1)))
    return heard_alone(recognizer, as_floats(samples))


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
            assert [lane.streams for lane in bundle.lanes] == [{2: other._stream}]
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
