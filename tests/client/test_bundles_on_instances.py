"""Bundles on a Triton with three instances: streams are spread by room, and none is refused while there is any."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from moulin.bundle.load import load_bundle
from moulin.client import AsyncBundledStream, AsyncClient, AsyncStreamBundle
from moulin.errors import ServerBusy
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.triton_repo.repository import build_streaming_repository
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES

pytestmark = pytest.mark.triton

_INSTANCES, _EACH = 3, 4
_NOISE = np.random.default_rng(0).integers(-2000, 2000, 3200).astype(np.int16)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("three")
    options = StreamingOptions(instances=_INSTANCES, max_streams=_INSTANCES * _EACH)
    build_streaming_repository(load_bundle(BUNDLES / "lstm-streaming"), repository, options)
    with TritonServer(repository, ServerOptions(0, 0, 0, exit_timeout_sec=1)) as running:
        running.wait_ready()
        yield running


async def _open(bundle: AsyncStreamBundle, count: int) -> list[AsyncBundledStream]:
    streams = [await bundle.open() for _ in range(count)]
    await asyncio.gather(*(stream.send(_NOISE) for stream in streams))
    return streams


def _by_instance(streams: list[AsyncBundledStream]) -> list[int]:
    return sorted(Counter(stream.lane.instance for stream in streams).values())


def test_all_places_are_used_evenly_while_lanes_come_and_go(three: TritonServer) -> None:
    async def script() -> None:
        async with asyncio.timeout(300), AsyncClient(three.grpc_url) as client:
            for _ in range(3):
                async with client.bundle() as one, client.bundle() as other:
                    streams = await _open(one, 6)
                    assert len({lane.instance for lane in one.lanes}) == _INSTANCES
                    assert _by_instance(streams) == [2, 2, 2]
                    streams += await _open(other, 6)
                    assert _by_instance(streams) == [_EACH] * _INSTANCES
                    with pytest.raises(ServerBusy):
                        await _open(other, 1)
                    freed = streams[0].lane.instance
                    await streams[0].finish()
                    await asyncio.sleep(1.0)  # the lanes that are idle ask for news
                    (late,) = await _open(other, 1)
                    assert late.lane.instance == freed

    asyncio.run(script())


def test_two_bundles_that_start_streams_at_once_find_all_places(three: TritonServer) -> None:
    """Each knows of the other's streams only by the replies; a start that is refused goes to another instance."""

    async def script() -> None:
        async with (
            asyncio.timeout(300),
            AsyncClient(three.grpc_url) as client,
            client.bundle() as one,
            client.bundle() as other,
        ):
            first, second = await asyncio.gather(_open(one, 6), _open(other, 6))
            assert _by_instance(first + second) == [_EACH] * _INSTANCES

    asyncio.run(script())
