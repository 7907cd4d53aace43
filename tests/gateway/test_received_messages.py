"""Messages that wait: in order, for a time, and within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from moulin.gateway import received_messages
from moulin.gateway.received_messages import ReadAhead, ReceivedMessages

MESSAGE: Any = {"type": "websocket.receive", "bytes": b"x"}
FREE, MOST, ALL = 10_000, 100_000, 150_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received_messages, "FREE_AHEAD_BYTES", FREE)
    monkeypatch.setattr(received_messages, "MOST_AHEAD_BYTES", MOST)


def run(script: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await script

    asyncio.run(limited())


def opened(ahead: ReadAhead | None = None) -> tuple[Any, list[str]]:
    """A queue, and what it has done to the reading."""
    done: list[str] = []
    queue = ReceivedMessages(ahead or ReadAhead(ALL), lambda: done.append("pause"), lambda: done.append("resume"))
    return queue, done


def test_messages_come_in_order() -> None:
    async def script() -> None:
        queue, _ = opened()
        for number in range(3):
            queue.put_nowait({**MESSAGE, "bytes": bytes([number])})
        taken = [await queue.get(1.0) for _ in range(3)]
        assert [message["bytes"] for message in taken if message] == [b"\0", b"\1", b"\2"]

    run(script())


def test_a_wait_ends_with_its_time_or_a_message() -> None:
    async def script() -> None:
        queue, _ = opened()
        now = asyncio.get_running_loop().time
        for timeout_sec in (0.03, 0.2, 0.01):  # later and earlier than the timer that is set
            began = now()
            assert await queue.get(timeout_sec) is None
            assert timeout_sec - 0.005 <= now() - began < timeout_sec + 5
        asyncio.get_running_loop().call_later(0.02, queue.put_nowait, MESSAGE)
        assert await queue.get(30.0) is MESSAGE
        asyncio.get_running_loop().call_later(0.02, queue.put_nowait, MESSAGE)
        assert await queue.get() is MESSAGE
        asyncio.get_running_loop().call_later(0.02, queue.put_nowait, MESSAGE)
        assert await queue.get(float("inf")) is MESSAGE

    run(script())


def test_a_wait_that_is_cancelled_loses_no_message() -> None:
    async def script() -> None:
        queue, _ = opened()
        waiting = asyncio.create_task(queue.get(30.0))
        await asyncio.sleep(0)
        queue.put_nowait(MESSAGE)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await queue.get(0.0) is MESSAGE

    run(script())


def test_a_client_that_sends_faster_is_read_no_further() -> None:
    async def script() -> None:
        queue, done = opened()
        queue.put_nowait(MESSAGE, MOST)
        assert done == ["pause"]
        queue.put_nowait(MESSAGE, MOST)
        await queue.get()
        assert done == ["pause"]
        await queue.get()
        assert done == ["pause", "resume"]

    run(script())


def test_messages_without_content_count_too() -> None:
    async def script() -> None:
        queue, done = opened()
        for _ in range(MOST // 100):
            queue.put_nowait(MESSAGE)
        assert done == ["pause"]

    run(script())


def test_all_share_a_bound_but_for_a_little() -> None:
    async def script() -> None:
        ahead = ReadAhead(ALL)
        (first, _), (second, paused), (third, free) = opened(ahead), opened(ahead), opened(ahead)
        first.put_nowait(MESSAGE, MOST - 1000)
        second.put_nowait(MESSAGE, MOST - 1000)
        third.put_nowait(MESSAGE, FREE - 1000)
        assert (paused, free) == (["pause"], [])
        await second.get()
        assert paused == ["pause", "resume"]
        first.close()
        third.close()
        assert ahead.used == 0

    run(script())


def test_what_is_dropped_is_read_past() -> None:
    async def script() -> None:
        ahead = ReadAhead(ALL)
        queue, done = opened(ahead)
        queue.put_nowait(MESSAGE, MOST)
        queue.drop()
        assert done == ["pause", "resume"]
        assert ahead.used == 0
        assert await queue.get(0.0) is None

    run(script())


def test_a_reader_who_never_waits_leaves_others_their_turn() -> None:
    async def script() -> None:
        queue, _ = opened()
        turns = 0

        async def neighbour() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(neighbour())
        for _ in range(1000):
            queue.put_nowait(MESSAGE)
        for _ in range(1000):
            assert await queue.get(1.0) is MESSAGE
        task.cancel()
        assert turns > 30

    run(script())
