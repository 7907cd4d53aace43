"""When a server counts as lost: it answers neither what it was asked nor a health call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from moulin.errors import ServerUnavailable

LOST_SEC = 1.5
"""The time without any answer after which a server is lost."""
STUCK_SEC = 2.5
"""After this time without an answer a model counts as lost, even if its server answers health calls: the model's own
process may hang or be stopped."""

_ASK_SEC = 0.5
"""The time after which a server that has not answered is asked for its health, and from one question to the next."""
_LOOK_SEC = 0.1

_Answer = TypeVar("_Answer")


async def answered(
    asked: Awaitable[_Answer], is_live: Callable[[], Awaitable[Any]], *, server: str, stuck_sec: float | None = None
) -> _Answer:
    """The answer to what a server was `asked`; `is_live` calls for its health, and raises where there is no answer.

    Raises ServerUnavailable where neither is answered for `LOST_SEC`, or the former not for `stuck_sec`, and what
    `asked` raises. Time in which this process itself could not run is not counted.
    """
    now = asyncio.get_running_loop().time
    waiting = asyncio.ensure_future(asked)
    health: asyncio.Future[Any] | None = None
    waited = silent = 0.0
    next_question = _ASK_SEC
    try:
        while True:
            began = now()
            await asyncio.wait(
                {waiting} if health is None else {waiting, health},
                timeout=_LOOK_SEC,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if waiting.done():
                return waiting.result()
            passed = min(now() - began, 2 * _LOOK_SEC)
            waited, silent = waited + passed, silent + passed
            if health is not None and health.done():
                if health.exception() is None:
                    silent = 0.0
                health, next_question = None, waited + _ASK_SEC
            if health is None and waited >= next_question:
                health = asyncio.ensure_future(is_live())
            if silent >= LOST_SEC:
                raise ServerUnavailable(f"The server at {server} has answered nothing for {LOST_SEC:g} s")
            if stuck_sec is not None and waited >= stuck_sec:
                raise ServerUnavailable(f"A model of the server at {server} has answered nothing for {stuck_sec:g} s")
    finally:
        for call in (waiting, health):
            if call is not None:
                call.cancel()
                call.add_done_callback(_forgotten)


def _forgotten(call: asyncio.Future[Any]) -> None:
    """Nobody waits for `call` any more; asyncio would complain, with a traceback, of an error that nobody asked for."""
    if not call.cancelled():
        call.exception()
