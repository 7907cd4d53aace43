"""When `LiveConnection` takes a client for silent, on a clock that goes when it is told to."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from moulin.gateway import live_connection
from moulin.gateway.draining import Draining
from moulin.gateway.live_connection import REST_SEC, LiveConnection
from moulin.gateway.live_session import LiveSession
from moulin.gateway.live_socket import ClientGone, CloseCode
from moulin.gateway.live_steps import Hear
from moulin.gateway.services import Services
from moulin.gateway.settings import GatewaySettings
from moulin.live_transcript import StreamUpdate

CHUNK = b"\1\0" * 1600


class World:
    """A client whose messages wait, and a server that takes `slow_sec` for each piece; both on one clock."""

    def __init__(self, messages: list[str | bytes], *, slow_sec: float = 0.0, paused_sec: float = 0.0) -> None:
        self.now = 100.0
        self.messages, self._slow_sec, self._paused_sec = deque(messages), slow_sec, paused_sec
        self.ends: list[str | None] = []
        """`Hear.end` of each piece."""
        self.closed: CloseCode | None = None

    def time(self) -> float:
        return self.now

    # The socket

    async def receive(self, timeout_sec: float) -> str | bytes | None:
        if self._paused_sec:  # the time goes by, and what has come meanwhile is read by the next call
            self.now, self._paused_sec = self.now + self._paused_sec, 0.0
            return None
        if not self.messages:
            self.now += timeout_sec
            raise ClientGone
        return self.messages.popleft()

    async def nothing_after_the_last(self, timeout_sec: float) -> str | bytes | None:
        if self.messages:
            return self.messages.popleft()
        self.now += timeout_sec
        return None

    async def send(self, fields: dict[str, Any]) -> None: ...

    async def close(self, code: CloseCode, reason: str) -> None:
        self.closed, self.reason = code, reason

    # The recognition

    async def hear(self, step: Hear) -> StreamUpdate:
        self.ends.append(step.end)
        self.now += self._slow_sec
        return StreamUpdate((), False, step.end is not None, 0.0)

    async def forget(self) -> None: ...


def serve(world: World, monkeypatch: pytest.MonkeyPatch, draining: Draining | None = None) -> None:
    draining = draining or Draining()
    services = cast(Services, SimpleNamespace(settings=GatewaySettings(), draining=draining))
    monkeypatch.setattr(
        live_connection, "asyncio", SimpleNamespace(get_running_loop=lambda: world, timeout=asyncio.timeout)
    )
    asyncio.run(LiveConnection(services, world, LiveSession("transducer"), world).run())


@pytest.mark.parametrize("slow_sec", [REST_SEC - 1, REST_SEC + 1, 60.0])
def test_a_slow_server_is_no_silence(slow_sec: float, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([CHUNK, CHUNK, CHUNK, '{"type": "end"}'], slow_sec=slow_sec)
    serve(world, monkeypatch)
    assert world.ends == [None, None, None, "rest"]
    assert world.closed == CloseCode.DONE


def test_what_came_during_a_pause_of_the_gateway_is_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([CHUNK, CHUNK, '{"type": "end"}'])
    heard = world.hear

    async def then_pause(step: Hear) -> StreamUpdate:
        update = await heard(step)
        if len(world.ends) == 1:
            world._paused_sec = 3600.0
        return update

    monkeypatch.setattr(world, "hear", then_pause)
    serve(world, monkeypatch)
    assert world.ends == [None, None, "rest"]
    assert world.closed == CloseCode.DONE


def test_silence_ends_the_stream_and_then_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([CHUNK])
    monkeypatch.setattr(world, "receive", world.nothing_after_the_last)
    serve(world, monkeypatch)
    assert world.ends == [None, "rest"]
    assert world.closed == CloseCode.IDLE


def test_a_client_without_a_stream_is_closed_as_the_gateway_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    world, draining = World(['{"type": "ping"}']), Draining()
    draining.begin()
    monkeypatch.setattr(world, "receive", world.nothing_after_the_last)
    serve(world, monkeypatch, draining)
    assert world.closed == CloseCode.RESTART
    assert not world.messages  # what had come is read


def test_a_client_with_a_stream_goes_on_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    world, draining = World([CHUNK, CHUNK, CHUNK, '{"type": "end"}']), Draining()
    heard = world.hear

    async def then_drain(step: Hear) -> StreamUpdate:
        draining.begin()
        return await heard(step)

    monkeypatch.setattr(world, "hear", then_drain)
    serve(world, monkeypatch, draining)
    assert world.ends == [None, None, None, "rest"]
    assert world.closed == CloseCode.DONE
