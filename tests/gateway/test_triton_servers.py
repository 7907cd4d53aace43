"""Several Triton servers as one, with stand-ins that fail when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from moulin.client.served_model import ServedModel
from moulin.errors import RequestRefused, ServerUnavailable
from moulin.gateway import triton_servers
from moulin.gateway.triton_servers import TritonServers
from moulin.transcript import Transcript

MODEL = ServedModel("m", False, 30.0)
SILENCE = np.zeros(16, np.float32)


@dataclass
class FakeClient:
    """The part of `AsyncClient` that is used; hears its own address."""

    url: str
    offered: Sequence[ServedModel] = (MODEL,)
    fail: Exception | None = None
    asked: int = 0
    asked_for_models: int = 0
    hold: asyncio.Event | None = None
    request_ids: list[str] = field(default_factory=list)

    async def models(self) -> list[ServedModel]:
        self.asked_for_models += 1
        if self.hold:
            await self.hold.wait()
        if self.fail:
            raise self.fail
        return list(self.offered)

    async def transcribe_batch(
        self, _audios: object, _options: Mapping[str, Any] | None, *, model: str, request_id: str
    ) -> list[Transcript]:
        assert model == "m"
        self.asked += 1
        self.request_ids.append(request_id)
        if self.hold:
            await self.hold.wait()
        if self.fail:
            raise self.fail
        return [Transcript(self.url, (), 0.0)]

    @asynccontextmanager
    async def stream(self, *, model: str, request_id: str, **options: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        assert (model, request_id) == ("m", "id")
        yield self.url, options

    async def close(self) -> None: ...


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Servers:
    """Two of them, and the clock."""

    both: TritonServers
    a: FakeClient
    b: FakeClient
    clock: Clock

    async def heard(self) -> str:
        return (await self.both.transcribe("m", SILENCE, request_id="id")).text


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    clients = {url: FakeClient(url) for url in ("a", "b")}
    monkeypatch.setattr(triton_servers, "AsyncClient", lambda url, **_: clients[url])
    clock = Clock()
    return Servers(TritonServers(["a", "b"], clock=clock), clients["a"], clients["b"], clock)


def run(servers: Servers, script: Any) -> None:
    async def entered() -> None:
        async with servers.both:
            await servers.both.models()
            await script()

    asyncio.run(entered())


def test_the_one_with_the_least_to_do(servers: Servers) -> None:
    async def script() -> None:
        servers.a.hold = asyncio.Event()
        waiting = asyncio.create_task(servers.heard())
        await asyncio.sleep(0)
        assert [await servers.heard(), await servers.heard()] == ["b", "b"]
        servers.a.hold.set()
        assert await waiting == "a"
        assert await servers.heard() == "a"
        assert servers.a.request_ids == ["id", "id"]

    run(servers, script)


def test_another_answers_for_one_that_does_not_which_is_left_alone_for_a_while(servers: Servers) -> None:
    async def script() -> None:
        servers.a.fail = ServerUnavailable("gone")
        assert [await servers.heard(), await servers.heard()] == ["b", "b"]
        assert servers.a.asked == 1
        servers.clock.now += 1.1
        assert await servers.heard() == "b"
        assert servers.a.asked == 2
        servers.a.fail = None
        servers.clock.now += 1.1
        assert await servers.heard() == "a"

    run(servers, script)


def test_a_refusal_is_nobody_elses_business(servers: Servers) -> None:
    async def script() -> None:
        servers.a.fail = RequestRefused("too long")
        with pytest.raises(RequestRefused):
            await servers.heard()
        assert servers.b.asked == 0

    run(servers, script)


def test_all_are_gone_and_one_returns(servers: Servers) -> None:
    async def script() -> None:
        servers.a.fail = servers.b.fail = ServerUnavailable("gone")
        for _ in range(3):
            with pytest.raises(ServerUnavailable):
                await servers.heard()
        assert not await servers.both.is_ready()
        servers.b.fail = None
        assert await servers.heard() == "b"  # at once, although it was to be avoided
        assert await servers.both.is_ready()

    run(servers, script)


def test_models_are_asked_for_every_few_seconds_and_kept_when_nobody_answers(servers: Servers) -> None:
    async def script() -> None:
        servers.b.offered = (MODEL, ServedModel("only-b", True, 30.0))
        assert list(await servers.both.models()) == ["m"]
        assert servers.b.asked_for_models == 1
        servers.clock.now += 5.1
        assert list(await servers.both.models()) == ["m", "only-b"]
        servers.a.fail = servers.b.fail = ServerUnavailable("gone")
        servers.clock.now += 5.1
        assert list(await servers.both.models()) == ["m", "only-b"]
        with pytest.raises(ServerUnavailable, match="No Triton server offers the model 'x'"):
            await servers.both.transcribe("x", SILENCE)

    run(servers, script)


def test_nobody_has_ever_answered(servers: Servers) -> None:
    servers.a.fail = servers.b.fail = ServerUnavailable("not there yet")

    async def script() -> None:
        async with servers.both:
            with pytest.raises(ServerUnavailable, match="not there yet"):
                await servers.both.models()
            servers.b.fail = None
            assert list(await servers.both.models()) == ["m"]

    asyncio.run(script())


def test_a_server_that_hangs_keeps_nobody_waiting(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_servers, "_ASKED_FOR_SEC", 0.05)

    async def script() -> None:
        servers.a.hold = asyncio.Event()
        servers.clock.now += 5.1
        first = asyncio.create_task(servers.both.models())
        await asyncio.sleep(0)
        assert list(await servers.both.models()) == ["m"]  # what was known, at once
        assert not first.done()
        assert list(await first) == ["m"]
        assert await servers.both.is_ready()
        servers.b.hold = servers.a.hold
        assert not await servers.both.is_ready()

    run(servers, script)


def test_a_stream_stays_where_it_began(servers: Servers) -> None:
    async def script() -> None:
        async with (
            servers.both.stream("m", request_id="id", beam=2) as first,
            servers.both.stream("m", request_id="id") as second,
        ):
            opened: list[object] = [first, second]
            assert opened == [("a", {"beam": 2}), ("b", {})]
            assert await servers.heard() in ("a", "b")

    run(servers, script)
