"""An event loop whose clock jumps to the next timer instead of waiting: exact times, in no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _NoWait(selectors.DefaultSelector):
    """Tells the loop how long it wanted to wait, and does not."""

    wanted_sec: float | None = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.wanted_sec = timeout
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop for coroutines that wait for timers only: without a timer it would spin for ever, so it fails instead."""

    def __init__(self) -> None:
        self._jumping = _NoWait()
        self._now = 1000.0
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        assert self._jumping.wanted_sec is not None, "nothing is left that could happen"
        self._now += self._jumping.wanted_sec


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)
