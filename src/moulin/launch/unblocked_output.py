"""What a service says on a pipe or a terminal that nobody reads: lines are left out, and the service goes on.

A pipe takes 64 KiB and a terminal that was stopped (Ctrl-S) takes nothing. Who then writes waits, and with it
everything that is served by the same thread.
"""

from __future__ import annotations

import atexit
import io
import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_MOST_BYTES = 1 << 20
"""Kept for a reader that is slow."""
_END_SEC = 1.0
"""Time for the rest to be written when the process ends."""


class UnblockedOutput(io.RawIOBase):
    """A raw stream to a file descriptor, on a thread of its own: `write` never waits and never fails."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._held, self._left_out = 0, 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="moulin-output", daemon=True).start()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: ReadableBuffer, /) -> int:
        """Keep `data`, or count it as left out where too much is kept."""
        kept = bytes(data)
        with self._changed:
            if self._held + len(kept) > _MOST_BYTES:
                self._left_out += 1
            else:
                self._add(kept)
        return len(kept)

    def drain(self) -> None:
        """Wait until all is written, at most a second."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held, _END_SEC)

    def _add(self, data: bytes) -> None:
        self._waiting.append(data)
        self._held += len(data)
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                data = self._waiting.popleft()
            self._write_all(data)
            with self._changed:
                self._held -= len(data)
                if self._left_out:
                    self._add(f"({self._left_out} pieces of output were left out: nobody read them)\n".encode())
                    self._left_out = 0
                self._changed.notify_all()

    def _write_all(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:  # the reader has gone or the disk is full: nobody can be told
            return


def unblock_stderr() -> None:
    """Make `sys.stderr` an UnblockedOutput to where it is, until the process ends. One that is no file stays."""
    before = sys.stderr
    try:
        output = UnblockedOutput(before.fileno())
    except (AttributeError, OSError, ValueError):  # closed, or a stream of a program that calls this one
        return
    sys.stderr = io.TextIOWrapper(
        output,
        encoding=before.encoding,
        errors="backslashreplace",
        write_through=True,
    )
    atexit.register(output.drain)
