"""The gateway as a process beside Triton: started, watched, and stopped with its owner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from moulin.errors import LaunchError
from moulin.launch.answers import answers

_POLL_SEC = 0.1
_READY_SEC = 30.0
_EXIT_GRACE_SEC = 15.0
"""Time for the gateway to exit; it gives running requests ten seconds of it."""


class GatewayProcess:
    """A process of `moulin gateway`; a context manager that waits until it answers, and stops it.

    The process has its own session, so that a terminal's Ctrl-C reaches only the owner, and ends with the owner even if
    that is killed: it must be started by a thread that lives as long as the owner. It shares the owner's output.
    """

    def __init__(self, arguments: Sequence[str], *, address: str, environ: Mapping[str, str] = os.environ) -> None:
        """`address` is the HOST:PORT at which the gateway will answer."""
        self._arguments, self._address, self._environ = arguments, address, environ
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """None before `start`."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process, or a new one after it has ended, and wait until it answers. Raises LaunchError."""
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("parent_death.py")), str(os.getpid())]
        self._process = subprocess.Popen(
            [*launcher, sys.executable, "-m", "moulin", "gateway", *self._arguments],
            stdin=subprocess.DEVNULL,
            env=dict(self._environ),
            start_new_session=True,
        )
        deadline = time.monotonic() + _READY_SEC
        while not answers(self._address, "/healthz"):
            if self._process.poll() is not None:
                raise LaunchError(f"Expected the gateway to start, got exit code {self._process.returncode}")
            if time.monotonic() > deadline:
                raise LaunchError(f"Expected the gateway to answer within {_READY_SEC:g} s at {self._address}")
            time.sleep(_POLL_SEC)

    def poll(self) -> int | None:
        """The exit code, or None while it runs or has not been started."""
        return self._process.poll() if self._process else None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def stop(self) -> None:
        """Stop it after running requests have finished. Idempotent."""
        if self._process is None or self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_EXIT_GRACE_SEC)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
