"""A supervised tritonserver: restarted when it, or a process of one of its models, has died."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from moulin.errors import LaunchError
from moulin.launch.ports import claim_ports
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.tritonserver import TritonInstallation

_RESTARTS = 5
_WITHIN_SEC = 600.0
_FIRST_PAUSE_SEC = 1.0
"""The pause before a restart; doubles with every restart of the last ten minutes, in case it dies at every start."""


class KeptServer:
    """Owns consecutive TritonServers on the same ports; a context manager whose entry returns when one is ready.

    Triton can reload a model whose process has died only through its model control, which would also let any client
    load arbitrary models. So the whole server is restarted; running requests fail as unavailable.
    """

    def __init__(
        self,
        model_repository: Path,
        options: ServerOptions,
        *,
        installation: TritonInstallation | None = None,
        on_line: Callable[[str], None] | None = None,
        on_restart: Callable[[str], None],
    ) -> None:
        """`on_line` is TritonServer's; `on_restart` receives the reason for a restart."""
        self._repository, self._options, self._installation = model_repository, options, installation
        self._on_line, self._on_restart = on_line, on_restart
        self._restarts: deque[float] = deque(maxlen=_RESTARTS)
        self._server: TritonServer | None = None

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
            self._start()
        except BaseException:
            self.stop()
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
        """Return after `seconds`, or when something died and another server is ready.

        Raises LaunchError after too many restarts.
        """
        self.server.wait(seconds)
        reason = _failure(self.server)
        while reason is not None:
            self._pause(reason)
            self.server.kill()
            try:
                self._start()
                return
            except LaunchError as error:
                reason = error.message

    def stop(self) -> None:
        """Stop the current server (`TritonServer.stop`). Idempotent."""
        if self._server is not None:
            self._server.stop()

    def kill(self) -> None:
        """Kill the current server (`TritonServer.kill`)."""
        if self._server is not None:
            self._server.kill()

    def _start(self) -> None:
        self._server = TritonServer(
            self._repository, self._options, installation=self._installation, on_line=self._on_line
        )
        self._server.start()
        self._server.wait_ready()

    def _pause(self, reason: str) -> None:
        now = time.monotonic()
        while self._restarts and self._restarts[0] < now - _WITHIN_SEC:
            self._restarts.popleft()
        if len(self._restarts) == _RESTARTS:
            raise LaunchError(f"{reason}, for the {_RESTARTS + 1}th time in {_WITHIN_SEC / 60:g} minutes")
        self._on_restart(reason)
        time.sleep(_FIRST_PAUSE_SEC * 2 ** len(self._restarts))
        self._restarts.append(now)


def _failure(server: TritonServer) -> str | None:
    """A description of what has died; None if nothing has."""
    if (code := server.poll()) is not None:
        last_line = next((line for line in reversed(server.log_tail) if line.strip()), "it printed nothing")
        return f"tritonserver ended unexpectedly with exit code {code}: {last_line}"
    if lost := server.lost_instances():
        return f"The process of {', '.join(lost)} has died"
    return None
