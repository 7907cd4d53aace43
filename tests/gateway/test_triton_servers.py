"""Several Triton servers as one, with stand-ins that fail when told to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from moulin.client.served_model import ServedModel
from moulin.errors import RequestRefused, ServerBusy, ServerUnavailable
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
    is_closed: bool = False

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

    async def unless_lost(self, asked: Awaitable[Any]) -> Any:
        return await asked

    async def close(self) -> None:
        self.is_closed = True


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
    monkeypatch.setattr("moulin.gateway.triton_servers.random.random", lambda: 0.0)  # the first of equals
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
        servers.clock.now += 1.1  # the time doubles
        assert await servers.heard() == "b"
        servers.clock.now += 1.0
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


def test_equals_share_what_comes(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    clients = {"a": servers.a, "b": servers.b}
    monkeypatch.setattr(triton_servers, "AsyncClient", lambda url, **_: clients[url])

    async def script() -> None:
        assert min(Counter([await servers.heard() for _ in range(200)]).values()) > 50

    run(servers, script)


def test_a_full_queue_is_no_reason_to_refuse(servers: Servers) -> None:
    async def script() -> None:
        servers.a.fail = ServerBusy("full")
        assert await servers.heard() == "b"
        servers.b.fail = ServerBusy("full")
        with pytest.raises(ServerBusy):
            await servers.heard()

    run(servers, script)


# Names in DNS


class Named:
    """Servers behind a name, and a clock for the time between two look-ups."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clients: dict[str, FakeClient] = {}
        self.hosts: list[str] | OSError = ["127.0.0.2", "127.0.0.3"]
        self.servers = TritonServers(["fixed:1", "dns:asr.example:8001"], resolve=self._resolve)
        monkeypatch.setattr(triton_servers, "AsyncClient", self._client)

    async def _resolve(self, name: str) -> list[str]:
        assert name == "asr.example"
        if isinstance(self.hosts, OSError):
            raise self.hosts
        return self.hosts

    def _client(self, url: str, **_: Any) -> FakeClient:
        assert url not in self.clients or self.clients[url].is_closed
        self.clients[url] = FakeClient(url)
        return self.clients[url]

    async def now(self, hosts: list[str] | OSError) -> None:
        """The name has these addresses, and the servers know."""
        self.hosts = hosts
        await self.servers._discover()
        await self.servers.models()

    @property
    def open(self) -> list[str]:
        return sorted(url for url, client in self.clients.items() if not client.is_closed)

    async def heard_by(self) -> set[str]:
        """Who answers when all are asked at once."""
        asked = [self.servers.transcribe("m", SILENCE, request_id="id") for _ in range(64)]
        return {transcript.text for transcript in await asyncio.gather(*asked)}

    def metric(self, name: str, **labels: str) -> float | None:
        return self.servers._metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Named:
    monkeypatch.setattr(triton_servers, "_TENDED_SEC", 0.01)
    return Named(monkeypatch)


def discover(named: Named, script: Callable[[], Awaitable[None]]) -> None:
    async def entered() -> None:
        async with named.servers:
            await named.servers.models()
            await script()

    asyncio.run(entered())


def test_servers_come_and_go_with_their_names_addresses(named: Named) -> None:
    async def script() -> None:
        assert await named.heard_by() == {"fixed:1", "127.0.0.2:8001", "127.0.0.3:8001"}
        await named.now(["127.0.0.3", "127.0.0.4", "::1"])
        assert await named.heard_by() == {"fixed:1", "127.0.0.3:8001", "127.0.0.4:8001", "[::1]:8001"}
        while "127.0.0.2:8001" in named.open:
            await asyncio.sleep(0.01)

    discover(named, script)
    assert named.open == []


def test_what_a_name_server_does_not_know_changes_nothing(named: Named) -> None:
    async def script() -> None:
        nothings: list[list[str] | OSError] = [[], OSError("no such name"), []]
        for nothing in nothings:
            await named.now(nothing)
            assert await named.heard_by() == {"fixed:1", "127.0.0.2:8001", "127.0.0.3:8001"}
        assert named.metric("moulin_gateway_resolutions_total", outcome="empty") == 2
        assert named.metric("moulin_gateway_resolutions_total", outcome="failed") == 1
        assert named.metric("moulin_gateway_resolutions_total", outcome="answered") == 1

    discover(named, script)


def test_a_server_that_is_not_listed_any_more_finishes_what_it_has(named: Named) -> None:
    async def script() -> None:
        two = named.clients["127.0.0.2:8001"]
        two.hold = asyncio.Event()
        asked = []
        while not two.asked:  # equals are chosen by chance
            asked.append(asyncio.create_task(named.servers.transcribe("m", SILENCE, request_id="id")))
            await asyncio.sleep(0)
        await named.now(["127.0.0.3"])
        while named.metric("moulin_gateway_servers", state="departed") != 1:
            await asyncio.sleep(0.01)
        assert "127.0.0.2:8001" not in await named.heard_by()
        assert not two.is_closed
        two.hold.set()
        assert "127.0.0.2:8001" in {transcript.text for transcript in await asyncio.gather(*asked)}
        while not two.is_closed:
            await asyncio.sleep(0.01)

    discover(named, script)


def test_nobody_knows_the_name_yet(named: Named) -> None:
    async def script() -> None:
        named.servers = TritonServers(["dns:asr.example:8001"], resolve=named._resolve)
        named.clients.clear()
        named.hosts = OSError("no such name")
        async with named.servers as servers:
            with pytest.raises(ServerUnavailable, match=r"No address is known for dns:asr\.example:8001"):
                await servers.models()
            assert not await servers.is_ready()
            await named.now(["127.0.0.2"])
            assert await servers.is_ready()

    discover(named, script)
