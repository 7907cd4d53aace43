"""A process of the executor's: it ends with the executor, and is told of every death."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from moulin.bulk.local.channel import Channel

_OURS = (signal.SIGINT, signal.SIGTERM)
"""Signals that a terminal or a job scheduler sends to all processes: the executor decides what follows."""

_PR_SET_PDEATHSIG = 1
_END_SEC = 5.0


class Child:
    """The executor's side: a process that runs a module with an end of a channel."""

    def __init__(self, module: str) -> None:
        """`python -m MODULE DESCRIPTOR OUR-PROCESS-ID`."""
        self.channel, theirs = Channel.pair()
        try:
            command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid())]
            with _blocked(_OURS):  # until `run_child` ignores them
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),))
        finally:
            theirs.close()

    @property
    def process_id(self) -> int:
        return self._process.pid

    def send_object(self, file: int) -> None:
        """Send the process its settings, the first thing that it reads. Closes the descriptor, of `object_file`."""
        with contextlib.suppress(OSError):  # it has ended: its closed channel says so
            self.channel.send({"settings": True}, file)
        os.close(file)

    def kill(self) -> None:
        """End it at once; what it sent before still comes."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def ended(self) -> str:
        """Wait for the process to end, after its channel is closed; returns how it ended."""
        self.channel.close()
        try:
            status = self._process.wait(_END_SEC)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def run_child(serve: Callable[[Channel], None]) -> None:
    """The main function of such a process. It ends when the executor does, even by SIGKILL, and not by _OURS."""
    channel, parent = Channel.of(int(sys.argv[1])), int(sys.argv[2])
    for ignored in _OURS:
        signal.signal(ignored, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it ended before that: no signal comes
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the executor has gone
        serve(channel)


@contextmanager
def _blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """A process that is started within the block begins with `signals` pending instead of ended by them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
