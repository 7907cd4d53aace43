"""A supervised tritonserver: restarted when it, or a process of one of its models, has ended, is stopped or hangs."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from moulin.errors import LaunchError
from moulin.launch.backoff import Backoff
from moulin.launch.liveness import Failure
from moulin.launch.ports import claim_ports
from moulin.launch.server import ServerFailed, TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.supervision import SupervisionBoard
from moulin.launch.tritonserver import TritonInstallation

_FAILED_STARTS = 5
_WITHIN_SEC = 600.0
_CRASHED_STARTS = 2
"""So often a first start that crashed is tried again."""
_FIRST_PAUSE_SEC = 1.0
"""The pause before the second restart in a row; it doubles with each further one, up to half a minute."""
_LOOK_SEC = 1.0


class KeptServer:
    """Owns consecutive TritonServers on the same ports; a context manager whose entry returns when one is ready.

    Triton can reload a model whose process has died only through its model control, which would also let any client
    load arbitrary models. So the whole server is restarted; running requests fail as unavailable.

    A server that was ready is started again however often it fails. One that cannot be started is given up the sixth
    time in ten minutes, a first start that crashes the third time.
    """

    def __init__(
        self,
        model_repository: Path,
        options: ServerOptions,
        *,
        installation: TritonInstallation | None = None,
        on_line: Callable[[str], None] | None = None,
        on_restart: Callable[[str], None],
        board: SupervisionBoard | None = None,
    ) -> None:
        """`on_line` is TritonServer's; `on_restart` receives the reason for a restart, and `board` its cause."""
        self._repository, self._options, self._installation = model_repository, options, installation
        self._on_line, self._on_restart, self._board = on_line, on_restart, board
        self._failed_starts: deque[float] = deque()
        self._backoff = Backoff()
        self._ready_at: float | None = None
        self._server: TritonServer | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()

    def __enter__(self) -> Self:
        wanted = self._options
        ports = claim_ports(
            wanted.host,
            {
                "--http-port": wanted.http_port,
                "--grpc-port": wanted.grpc_port,
                "--metrics-port": wanted.metrics_port,
            },
        )
        self._options = replace(
            wanted,
            http_port=ports["--http-port"],
            grpc_port=ports["--grpc-port"],
            metrics_port=ports["--metrics-port"],
        )
        try:
            self._start_first()
        except BaseException:
            if self._server is not None:
                self._server.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def server(self) -> TritonServer:
        """The current server."""
        assert self._server is not None, "enter the context first"
        return self._server

    def watch(self, seconds: float) -> None:
        """Return after `seconds`, or when something failed and another server is ready, or `stop` was called.

        Raises LaunchError after too many starts that failed.
        """
        until = time.monotonic() + seconds
        while not self._stopping.is_set() and (left_sec := until - time.monotonic()) > 0:
            self.server.wait(min(left_sec, _LOOK_SEC))
            if failure := self.server.failure():
                self._restart(failure)
                return

    def stop(self, grace_sec: float | None = None) -> None:
        """Stop the current server (`TritonServer.stop`), and start no other. Idempotent; from any thread."""
        self._stopping.set()
        with self._starting:
            server = self._server
        if server is not None:
            server.stop(grace_sec)

    def kill(self) -> None:
        """Kill the current server (`TritonServer.kill`)."""
        self._stopping.set()
        if self._server is not None:
            self._server.kill()

    def _start_first(self) -> None:
        """A first start that fails by itself is the caller's to judge. One that somebody stopped is tried again, and so
        is one that crashed: tritonserver aborts where the machine is too busy for it while it loads models."""
        for tries_left in range(_CRASHED_STARTS, -1, -1):
            try:
                self._start()
                return
            except ServerFailed as failed:
                if failed.failure.cause == "stopped":
                    self._restart(failed.failure)
                    return
                if not failed.crashed or not tries_left:
                    raise
                self._end(failed.failure)

    def _start(self) -> None:
        with self._starting:
            if self._stopping.is_set():
                return
            self._server = server = TritonServer(
                self._repository, self._options, installation=self._installation, on_line=self._on_line
            )
            server.start()
        server.wait_ready(timeout_sec=None)
        self._ready_at = time.monotonic()
        if self._board is not None:
            self._board.state("tritonserver", "running")

    def _restart(self, failure: Failure) -> None:
        """Start servers until one is ready, or `stop` is called."""
        while not self._stopping.is_set():
            self._end(failure)
            if self._stopping.is_set():
                return
            self._ready_at = None
            try:
                self._start()
                return
            except ServerFailed as failed:
                failure = failed.failure
            except LaunchError as error:
                failure = Failure("not_ready", error.message)

    def _end(self, failure: Failure) -> None:
        """Kill what is left of the server, and pause."""
        now = time.monotonic()
        if self._ready_at is None:
            self._count_failed_start(failure, now)
        self._on_restart(failure.reason)
        if self._board is not None:
            self._board.restart("tritonserver", failure)
        self.server.kill()
        ran_sec = now - self._ready_at if self._ready_at is not None else 0.0
        self._stopping.wait(self._backoff.pause_sec(ran_sec, _FIRST_PAUSE_SEC))

    def _count_failed_start(self, failure: Failure, now: float) -> None:
        while self._failed_starts and self._failed_starts[0] < now - _WITHIN_SEC:
            self._failed_starts.popleft()
        if len(self._failed_starts) == _FAILED_STARTS:
            raise LaunchError(f"{failure.reason}, for the {_FAILED_STARTS + 1}th time in {_WITHIN_SEC / 60:g} minutes")
        self._failed_starts.append(now)
