"""The part that targets in the load generator's own process share: threads hand results to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import SAMPLE_RATE
from moulin.engine.features import TAIL_PADDING_SEC
from moulin.evaluate.connection import Record


class Queued:
    """A stream of one piece that goes into a queue."""

    def __init__(self, record: Record, loop: asyncio.AbstractEventLoop, put: Callable[[Record], object]) -> None:
        self._record, self._loop, self._put = record, loop, put

    def send(self, index: int) -> None:
        self._record.sent[index] = self._loop.time()
        self._put(self._record)

    def abandon(self) -> None:
        """Do nothing: a call cannot be taken back."""


def tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Call `call` in the event loop; do nothing where the loop has ended meanwhile."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)


def answer_to(record: Record, index: int, text: str) -> None:
    """Answers chunk `index` and all before it that are not answered yet."""
    for earlier in range(index):
        if np.isnan(record.replied[earlier]):
            record.replied[earlier] = asyncio.get_running_loop().time()
    answer(record, index, text)


def answer(record: Record, index: int, text: str) -> None:
    now = asyncio.get_running_loop().time()
    record.replied[index] = now
    record.heard(text, now)
    if index == len(record.replied) - 1:
        record.finish(text)


def with_tail(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """`samples` [n] and the silence that moulin appends to every utterance, so that a peer does the same work."""
    return np.concatenate([samples, np.zeros(round(TAIL_PADDING_SEC * SAMPLE_RATE), dtype=np.float32)])
