"""The log of TensorRT and TensorRT-RTX: its first error for a message, all of it for whoever asks."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from moulin.quoting import cut

_NEEDED = re.compile(r"Exceeded mem budget of \d+\. Need (\d+)")
_log = logging.getLogger(__name__)
_MOST_SHOWN = 300
"""Characters of an error in a message."""

Say = Callable[[str], None]


@dataclass(slots=True, eq=False)
class Listener:
    """A reader of the log. `say` receives every line of it but those for NVIDIA's own developers."""

    say: Say | None = None
    first_error: str = ""
    needed_bytes: int = 0
    """The workspace that the builder wanted where it had too little, which is no error's text."""

    @property
    def reason(self) -> str:
        """The needed workspace, or the first line of the first error, cut; words where there is neither."""
        if self.needed_bytes:
            return f"it needs a workspace of {self.needed_bytes / 2**30:.1f} GiB"
        lines = self.first_error.strip().splitlines()
        return cut(lines[0], _MOST_SHOWN) if lines else "it gives no reason"


@contextmanager
def listening(tensorrt: Any, say: Say | None = None) -> Iterator[Listener]:
    """A reader of what the module `tensorrt` logs meanwhile, in whatever thread."""
    listeners = logger_of(tensorrt).listeners
    listener = Listener(say)
    listeners.append(listener)
    try:
        yield listener
    finally:
        listeners.remove(listener)


@functools.cache
def logger_of(tensorrt: Any) -> Any:
    """The logger of this process for the module `tensorrt`.

    There is one: the library keeps the first that it is given, and ignores others while anything made with it is alive.
    """

    class Logger(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.listeners: list[Listener] = []

        def log(self, severity: Any, msg: str) -> None:
            levels = tensorrt.ILogger.Severity
            is_error = severity in (levels.INTERNAL_ERROR, levels.ERROR)
            if is_error and not self.listeners:
                _log.error("%s", cut(msg, _MOST_SHOWN))
            needed = _NEEDED.search(msg)
            for listener in tuple(self.listeners):
                if needed:
                    listener.needed_bytes = max(listener.needed_bytes, int(needed[1]))
                if is_error:
                    listener.first_error = listener.first_error or msg
                if listener.say is not None and severity != levels.VERBOSE:
                    listener.say(f"  {severity.name.lower().replace('_', ' ')}: {msg}")

    return Logger()
