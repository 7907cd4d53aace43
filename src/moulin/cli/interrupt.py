"""Ctrl-C: the first ends a command within a second, with its results so far; the second ends it at once.

Python raises KeyboardInterrupt between two of its own steps. That is late while a native call runs (a batch in ONNX
Runtime, an export), and it does not reach the threads of an executor, for which a `with` block and the end of the
interpreter wait. So the C handler itself also tells a thread (`signal.set_wakeup_fd`): it gives the command `GRACE_SEC`
to unwind and print, then removes unfinished files and ends the process with status 130.

A service counts SIGTERM too (`count_also`), so that the second of either ends it, if it is no echo (`SignalEcho`).
Where SIGINT is ignored (a shell's background job) nothing is changed.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from moulin.launch.signal_echo import SignalEcho

GRACE_SEC = 0.7
"""Seconds from Ctrl-C to the end of a command that does not end by itself."""

_SIGNALLED = 128
STATUS = _SIGNALLED + signal.SIGINT
"""The exit status of a command that Ctrl-C has ended."""


class _Interrupts:
    """State that the thread and the command share."""

    def __init__(self) -> None:
        self.count = 0
        """Signals so far, without those that `first_taken` leaves to the caller."""
        self._grace_sec: float | None = GRACE_SEC
        self._counted = {signal.SIGINT}
        self._echo = SignalEcho()
        self._taken = False
        self._said = False
        self._is_ending = False
        self._lock = threading.Lock()
        self._cleanups: list[Callable[[], None]] = []
        self._timer: threading.Timer | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for Ctrl-C within the block, in the main thread only, and where SIGINT raises KeyboardInterrupt."""
        usable = threading.current_thread() is threading.main_thread()
        if not usable or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        heard, told = socket.socketpair()
        told.setblocking(False)
        self.count, self._said, self._taken, self._grace_sec = 0, False, False, GRACE_SEC
        self._counted = {signal.SIGINT}
        before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=self._listen, args=(heard,), name="moulin-interrupt", daemon=True)
        thread.start()
        try:
            yield
        finally:
            if self._is_ending:  # its clean-up let the command come to an end here, but the status is the thread's
                threading.Event().wait()
            if not self.count:  # else the thread is needed to the very end: executors are joined on exit
                signal.set_wakeup_fd(before)
                told.close()
                thread.join()
                heard.close()

    def allow(self, grace_sec: float | None) -> None:
        """Set how long the command may take to end; None for no limit. A second Ctrl-C ends it all the same."""
        self._grace_sec = grace_sec

    def count_also(self, number: signal.Signals) -> None:
        """Let this signal, for which the command has a handler, count as Ctrl-C does."""
        self._counted.add(number)

    @property
    def is_usual_end(self) -> bool:
        """Whether Ctrl-C is how the command is meant to be ended."""
        return self._grace_sec is None

    @contextmanager
    def first_taken(self) -> Iterator[None]:
        """Leave the next Ctrl-C to the caller, which has a handler of its own for it."""
        self._taken = True
        try:
            yield
        finally:
            self._taken = False

    @contextmanager
    def at_the_end(self, cleanup: Callable[[], None]) -> Iterator[None]:
        """`cleanup` is called should the process be ended within the block, from another thread."""
        self._cleanups.append(cleanup)
        try:
            yield
        finally:
            self._cleanups.remove(cleanup)

    def say(self) -> None:
        """Print the line on standard error, once. A second caller waits until the first has printed it."""
        # On a terminal a progress bar may have hidden the cursor.
        line = b"\r\x1b[K\x1b[?25hInterrupted.\n" if os.isatty(2) else b"Interrupted.\n"
        with self._lock, contextlib.suppress(OSError, ValueError):
            # Nothing that is full keeps the process from ending.
            if not self._said and select.select([], [2], [], 0)[1]:
                self._said = True
                os.write(2, line)

    def _listen(self, heard: socket.socket) -> None:
        while numbers := heard.recv(16):
            for number in numbers:
                if number in self._counted and not self._echo.is_echo(number):
                    self._note(number)

    def _note(self, number: int) -> None:
        if self._taken:
            self._taken = False
            return
        self.count += 1
        if self.count > 1:
            self._end(_SIGNALLED + number)
        if self._grace_sec is not None:
            self._timer = threading.Timer(self._grace_sec, self._end)
            self._timer.daemon = True
            self._timer.start()

    def _end(self, status: int = STATUS) -> None:
        self._is_ending = True
        for cleanup in reversed(self._cleanups):
            with contextlib.suppress(Exception):
                cleanup()
        self.say()
        os._exit(status)


interrupts = _Interrupts()


def interrupt_once(number: int, _frame: FrameType | None) -> None:
    """A handler for a signal that is counted: the first raises KeyboardInterrupt; the second, which would only disturb
    the end that the first began, is left to the thread that counts."""
    signal.signal(number, _leave_to_the_thread)
    raise KeyboardInterrupt


def _leave_to_the_thread(_number: int, _frame: FrameType | None) -> None:
    pass


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A file or folder that is removed unless the block comes to its end, whatever stops it."""

    def remove() -> None:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    with interrupts.at_the_end(remove):
        try:
            yield path
        except BaseException:
            remove()
            raise
