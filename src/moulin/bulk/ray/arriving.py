"""Items of an iterator that blocks, for a loop that also looks at the clock. No Ray here."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

_LOOK_SEC = 0.2

_END = object()


def arriving(items: Iterable[Any]) -> Iterator[Any]:
    """Items of an iterator that blocks, and None where none has come for a while."""
    arrived: queue.Queue[Any] = queue.Queue(2)
    is_over = threading.Event()

    def put(item: Any) -> bool:
        while not is_over.is_set():
            try:
                arrived.put(item, timeout=_LOOK_SEC)
            except queue.Full:
                continue
            return True
        return False

    def take() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:
            put(error)
        else:
            put(_END)

    threading.Thread(target=take, name="moulin-ray-results", daemon=True).start()
    try:
        while True:
            try:
                item = arrived.get(timeout=_LOOK_SEC)
            except queue.Empty:
                yield None
                continue
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        is_over.set()
