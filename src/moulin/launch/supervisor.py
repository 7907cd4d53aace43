"""Triton and the gateway beside it: watched independently, each on a thread of its own, and stopped in order."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from moulin.launch.gateway import KeptGateway
from moulin.launch.kept_server import KeptServer

_LEAST_SEC = 1.0
_WATCH_SEC = 3600.0


class Supervisor:
    """A context manager that starts Triton and waits until it is ready; `beside` adds the gateway.

    On leaving, the gateway drains first, for which it needs Triton; the rest of the time is for Triton.
    """

    def __init__(self, triton: KeptServer, *, drain_sec: float) -> None:
        """`drain_sec` is the time for what is open when the service stops."""
        self.triton, self._drain_sec = triton, drain_sec
        self._gateway: KeptGateway | None = None
        self._failed = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._watch, name="moulin-triton", daemon=True)
        self._stopping = False

    def __enter__(self) -> Self:
        self.triton.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        began = time.monotonic()
        try:
            if self._gateway is not None:
                self._gateway.stop()
        finally:
            self.triton.stop(max(_LEAST_SEC, self._drain_sec - (time.monotonic() - began)))
            self._thread.join()

    def beside(self, gateway: KeptGateway) -> None:
        """Start the gateway, and wait until it answers. Raises LaunchError."""
        self._gateway = gateway
        gateway.__enter__()

    def wait(self, seconds: float) -> None:
        """Wait; raises what Triton was given up for (LaunchError)."""
        if self._failed.wait(seconds):
            assert self._error is not None
            raise self._error

    def _watch(self) -> None:
        try:
            while not self._stopping:
                self.triton.watch(_WATCH_SEC)
        except Exception as error:  # for the thread that waits
            self._error = error
            self._failed.set()
