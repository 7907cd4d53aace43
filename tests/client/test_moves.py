"""Streams whose server is lost, against `LaneService`s in this process. The fake model's text tells of every sample
that came twice, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from moulin.audio.waveform import in_16_bits
from moulin.client import AsyncStreamBundle, AsyncStreamPool, async_pool, server_bundles
from moulin.client import replay as replay_module
from moulin.client.async_bundle import Rescue
from moulin.errors import RequestRefused, ServerBusy, ServerUnavailable
from tests.triton_repo.fake_stream_runner import Clock, FakeStreamRunner

from .served_lanes import Served, alone

CAPACITY = 4
AUDIO = in_16_bits(np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32))
_PATIENCE_SEC = 300.0


class FakeClient:
    """The part of `AsyncClient` that is used."""

    def __init__(self, url: str, served: Served) -> None:
        self.url, self._served = url, served

    async def streaming_model(self) -> str:
        if self._served.dead:
            raise ServerUnavailable("gone")
        return "m"

    async def open_bundle(self, model: str, *, lanes: int | None, gather_sec: float, rescue: Rescue) -> Any:
        assert (model, lanes) == ("m", None)
        return AsyncStreamBundle(self._served.infer, 1, gather_sec=gather_sec, rescue=rescue)

    async def close(self) -> None: ...


class Cluster:
    """Three servers, of which those that are dead answer nothing."""

    def __init__(self) -> None:
        self.runners = [FakeStreamRunner(CAPACITY) for _ in range(3)]
        self.servers = [Served(Clock(), runner) for runner in self.runners]
        self.outcomes: list[str] = []

    def alive(self, *numbers: int) -> None:
        for number, server in enumerate(self.servers):
            server.dead = number not in numbers

    def kill(self, number: int, then: int | None = None) -> None:
        """One dies; another is there from then on."""
        self.servers[number].dead = True
        if then is not None:
            self.servers[then].dead = False


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster()
    monkeypatch.setattr(server_bundles, "_AGAIN_SEC", 0.0)
    monkeypatch.setattr(async_pool, "AsyncClient", lambda url, **_: FakeClient(url, made.servers[int(url)]))
    with ExitStack() as stack:
        for server in made.servers:
            stack.callback(server.close)
        for runner in made.runners:
            stack.callback(runner.release)
        yield made


def run(cluster: Cluster, script: Callable[[AsyncStreamPool], Awaitable[None]], **options: Any) -> None:
    def note(outcome: str, _seconds: float) -> None:
        cluster.outcomes.append(outcome)

    async def bounded() -> None:
        async with asyncio.timeout(_PATIENCE_SEC), AsyncStreamPool(["0", "1", "2"], note=note, **options) as pool:
            await script(pool)

    asyncio.run(bounded())


def test_a_stream_goes_on_with_another_server_to_the_sample(cluster: Cluster) -> None:
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        stream = await pool.open()
        await stream.send(AUDIO[:9000])
        cluster.kill(0, then=1)
        await stream.send(AUDIO[9000:20_000])
        assert (await stream.finish(AUDIO[20_000:])).text == alone(AUDIO)
        assert stream.moves == 1

    run(cluster, script)
    assert cluster.outcomes == ["moved"]


def test_without_audio_too(cluster: Cluster) -> None:
    """The lane notices by itself; nobody sends anything meanwhile."""
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        stream, news = await pool.open(), asyncio.Event()
        await stream.send(AUDIO[:9000])
        before = stream.live.text
        stream.on_news = news.set
        cluster.kill(0, then=1)
        while not stream.moves or stream.decoded_samples < 8000:
            await news.wait()
            news.clear()
            assert stream.live.text == before  # also while less of it has been heard again
        assert (await stream.finish(AUDIO[9000:])).text == alone(AUDIO)

    run(cluster, script)


def test_its_server_dies_with_its_last_samples(cluster: Cluster) -> None:
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        stream = await pool.open()
        await stream.send(AUDIO[:9000])
        cluster.runners[0].hold()
        stream.push(AUDIO[9000:], end=True)
        await asyncio.sleep(0.1)  # the server has them
        cluster.kill(0, then=2)
        cluster.runners[0].release()
        update = await stream.settled()
        assert update.is_final
        assert stream.live.text == alone(AUDIO)
        assert stream.live.duration_sec == 2.0

    run(cluster, script)


def test_its_second_server_dies_while_it_catches_up(cluster: Cluster) -> None:
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        stream = await pool.open()
        await stream.send(AUDIO[:9000])
        cluster.runners[1].hold()
        cluster.kill(0, then=1)
        stream.push(AUDIO[9000:20_000])
        while not cluster.servers[1].unary.num_open:
            await asyncio.sleep(0.01)
        cluster.kill(1, then=2)
        cluster.runners[1].release()
        await stream.settled()
        assert (await stream.finish(AUDIO[20_000:])).text == alone(AUDIO)
        assert stream.moves == 2

    run(cluster, script)


def test_final_segments_stay_and_numbers_and_times_go_on(cluster: Cluster) -> None:
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        stream = await pool.open()
        await stream.send(AUDIO[:9000])
        (first,) = (await stream.finalize()).segments
        await stream.send(AUDIO[9000:14_000])
        cluster.kill(0, then=1)
        await stream.finish(AUDIO[14_000:])
        assert stream.live.final[0] == first
        assert [segment.number for segment in stream.live.final] == [0, 1]
        begin = round(first.end_sec * 16_000)
        assert stream.live.final[1].text == alone(AUDIO[begin:])
        times = [
            sec for segment in stream.live.final for word in segment.words for sec in (word.start_sec, word.end_sec)
        ]
        assert times == sorted(times)
        assert stream.live.duration_sec == 2.0

    run(cluster, script)


def test_options_go_with_it(cluster: Cluster) -> None:
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        stream = await pool.open(endpoint=False, blank_penalty=0.5)
        await stream.send(AUDIO[:5000])
        stream.change_options(blank_penalty=1.0)
        await stream.send(AUDIO[5000:9000])
        stream.change_options(nonsense=1)
        with pytest.raises(RequestRefused, match="nonsense"):
            await stream.settled()
        cluster.kill(0, then=1)
        await stream.finish(AUDIO[9000:])

    run(cluster, script)
    first, *changes = cluster.servers[1].options
    assert (first, changes) == (b'{"endpoint": false, "blank_penalty": 0.5}', [b'{"blank_penalty": 1.0}'])


def test_nobody_is_left(cluster: Cluster) -> None:
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        stream = await pool.open()
        await stream.send(AUDIO[:9000])
        cluster.kill(0)
        with pytest.raises(ServerUnavailable, match=r"lost, and none has taken it over for 0\.3 s: No Triton server"):
            await stream.send(AUDIO[9000:])
        with pytest.raises(ServerUnavailable):
            await pool.open()
        cluster.alive(0)
        await asyncio.sleep(1.1)
        assert (await (await pool.open()).finish(AUDIO)).text == alone(AUDIO)

    run(cluster, script, patience_sec=0.3)
    assert cluster.outcomes == ["not_taken"]


def test_its_own_server_returns(cluster: Cluster) -> None:
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        stream = await pool.open()
        await stream.send(AUDIO[:9000])
        cluster.kill(0)
        stream.push(AUDIO[9000:], end=True)
        await asyncio.sleep(0.5)
        cluster.alive(0)
        await stream.settled()
        assert stream.live.text == alone(AUDIO)

    run(cluster, script)


def test_of_more_than_may_be_kept_nothing_is_said_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "KEPT_SAMPLES", 8000)
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        long, short = await pool.open(), await pool.open()
        await long.send(AUDIO[:9000])
        await short.send(AUDIO[:4000])
        cluster.kill(0, then=1)
        with pytest.raises(ServerUnavailable, match="No Triton server answers"):
            await long.send(AUDIO[9000:])
        assert (await short.finish(AUDIO[4000:6000])).text == alone(AUDIO[:6000])

    run(cluster, script)
    assert sorted(cluster.outcomes) == ["moved", "not_kept"]


def test_only_a_share_of_the_free_places_catches_up_the_oldest_first(cluster: Cluster) -> None:
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        streams = [await pool.open() for _ in range(3)]
        for stream in streams:
            await stream.send(AUDIO[:9000])
        cluster.runners[1].hold()
        cluster.kill(0, then=1)
        while not streams[0].moves:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert [stream.moves for stream in streams] == [1, 0, 0]  # a quarter of four places
        cluster.runners[1].release()
        for stream in streams:
            assert (await stream.finish(AUDIO[9000:])).text == alone(AUDIO)

    run(cluster, script)


def test_one_that_is_closed_while_it_is_homeless(cluster: Cluster) -> None:
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        stream = await pool.open()
        await stream.send(AUDIO[:9000])
        cluster.kill(0)
        while stream.lane.streams:
            await asyncio.sleep(0.01)
        await stream.close()
        cluster.alive(1)
        other = await pool.open()
        await other.send(AUDIO[:9000])
        assert cluster.servers[1].unary.num_open == 1
        await other.close()

    run(cluster, script)


def test_a_full_server_is_not_the_last(cluster: Cluster) -> None:
    cluster.alive(0)

    async def script(pool: AsyncStreamPool) -> None:
        first = [await pool.open() for _ in range(CAPACITY + 2)]
        cluster.alive(0, 1)
        await asyncio.gather(*(stream.send(AUDIO[:5000]) for stream in first))
        assert [server.unary.num_open for server in cluster.servers] == [CAPACITY, 2, 0]
        rest = [await pool.open() for _ in range(CAPACITY - 1)]
        heard = await asyncio.gather(*(stream.send(AUDIO[:5000]) for stream in rest), return_exceptions=True)
        assert sum(isinstance(result, ServerBusy) for result in heard) == 1
        for stream in first:
            assert (await stream.finish(AUDIO[5000:])).text == alone(AUDIO)

    run(cluster, script)


def test_one_that_stops_gets_no_new_streams_and_is_left_when_its_own_are_done(cluster: Cluster) -> None:
    cluster.alive(0, 1)

    async def script(pool: AsyncStreamPool) -> None:
        streams = [await pool.open() for _ in range(4)]
        for stream in streams:
            await stream.send(AUDIO[:5000])
        stopping, other = cluster.servers[:2]
        stopping.draining = True
        assert [server.unary.num_open for server in (stopping, other)] == [2, 2]
        late = [await pool.open() for _ in range(2)]
        for stream in late:
            await stream.send(AUDIO[:5000])
        assert [server.unary.num_open for server in (stopping, other)] == [2, 4]
        for stream in streams:
            assert (await stream.finish(AUDIO[5000:])).text == alone(AUDIO)
            assert stream.moves == 0
        while stopping.lanes.num_lanes:
            await asyncio.sleep(0.01)
        for stream in late:
            assert (await stream.finish(AUDIO[5000:])).text == alone(AUDIO)

    run(cluster, script)
