"""Work that goes on beside serving, a bit at a time, on a thread that ends with the object that it is for."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

Owner = TypeVar("Owner")

_JOIN_SEC = 5.0


def in_background(owner: Owner, work: Callable[[Owner], bool], *, pause_sec: float, name: str) -> Callable[[], None]:
    """Call `work(owner)`, each time after a pause, on a thread called `name`, until it returns False or raises
    RuntimeError, or nobody else holds the owner, or the process ends.

    Returns a function that ends it before, once the call that is under way has returned.
    """
    over = threading.Event()
    reference = weakref.ref(owner)

    def run() -> None:
        while not over.wait(pause_sec):
            held = reference()
            try:
                if held is None or not work(held):
                    return
            except RuntimeError as error:  # too little memory on the card, for example
                logger.warning("%s: %s", name, error)
                return
            del held

    thread = threading.Thread(target=run, name=name, daemon=True)

    def end() -> None:
        over.set()
        if thread is not threading.current_thread():
            thread.join(_JOIN_SEC)

    thread.start()
    # Also when the interpreter ends: a thread within CUDA would outlive it.
    return weakref.finalize(owner, end)
