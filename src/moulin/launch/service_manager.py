"""Messages to the service manager that started this process: systemd's `sd_notify`, a datagram to a Unix socket."""

from __future__ import annotations

import contextlib
import socket

from moulin.quoting import bounded

_PATIENCE_SEC = 5.0
"""A manager whose queue is full for so long is told no more: the service must not wait for it."""


class ServiceManager:
    """The manager's socket. Without one, as on a terminal, nothing is sent; a message that fails is left out."""

    def __init__(self, address: str | None, *, is_watching: bool = False) -> None:
        """`address` is that of NOTIFY_SOCKET, a path or `@` and an abstract name; `is_watching` whether the manager
        ends a process that does not call `alive` (WatchdogSec, which sets WATCHDOG_USEC)."""
        self._address = address and (f"\0{address[1:]}" if address.startswith("@") else address)
        self._is_watching = is_watching

    def status(self, text: str) -> None:
        """Show `text`, of one line, as what the service is doing."""
        self._send(f"STATUS={_line(text)}")

    def ready(self, text: str) -> None:
        """The start is over: units that wait for this one may begin. `text` as for `status`."""
        self._send(f"READY=1\nSTATUS={_line(text)}")

    def stopping(self, text: str) -> None:
        """The service has begun to stop by itself, or was told to. `text` as for `status`."""
        self._send(f"STOPPING=1\nSTATUS={_line(text)}")

    def alive(self) -> None:
        """The supervising loop still runs; to be called several times in the manager's time limit."""
        if self._is_watching:
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.settimeout(_PATIENCE_SEC)
            to.sendto(message.encode(), self._address)


def _line(text: str) -> str:
    return bounded(" ".join(text.split()))
