"""When a server is lost, with short times."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from moulin.client import loss
from moulin.client.loss import answered
from moulin.errors import RequestRefused, ServerUnavailable


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in [("LOST_SEC", 0.3), ("_ASK_SEC", 0.05), ("_LOOK_SEC", 0.02)]:
        monkeypatch.setattr(loss, name, seconds)


async def _never() -> None:
    await asyncio.Event().wait()


def ask(asked: Callable[[], Awaitable[Any]], is_live: Callable[[], Awaitable[Any]], **options: Any) -> Any:
    return asyncio.run(asyncio.wait_for(answered(asked(), is_live, server="a:1", **options), 60))


def test_neither_answer_nor_health() -> None:
    with pytest.raises(ServerUnavailable, match="The server at a:1 has answered nothing"):
        ask(_never, _never)


def test_health_refused_is_no_answer() -> None:
    async def refused() -> None:
        raise ConnectionRefusedError

    with pytest.raises(ServerUnavailable, match="has answered nothing"):
        ask(_never, refused)


def test_a_late_answer_of_a_live_server_is_waited_for() -> None:
    calls = 0

    async def is_live() -> bool:
        nonlocal calls
        calls += 1
        return True

    async def late() -> str:
        while calls < 10:  # twice as long as a server may be silent
            await asyncio.sleep(0.01)
        return "late"

    assert ask(late, is_live) == "late"


def test_a_model_that_hangs_on_a_live_server() -> None:
    async def is_live() -> bool:
        return True

    with pytest.raises(ServerUnavailable, match="A model of the server at a:1"):
        ask(_never, is_live, stuck_sec=0.5)


def test_a_refusal_is_an_answer() -> None:
    async def refused() -> None:
        raise RequestRefused("no")

    with pytest.raises(RequestRefused):
        ask(refused, _never)


def test_what_was_asked_is_given_up_with_its_caller() -> None:
    async def script() -> None:
        asked = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(answered(asked, _never, server="a:1"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert asked.cancelled()

    asyncio.run(script())


def test_what_fails_as_it_is_given_up_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """As a call of gRPC's does where the connection breaks."""

    async def breaks() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionResetError

    with pytest.raises(ServerUnavailable, match="has answered nothing"):
        ask(breaks, breaks)
    gc.collect()
    assert not caplog.records
