"""TCP ports for a server that is about to start."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping

from moulin.errors import LaunchError


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen on `host`:`port` now."""
    with _socket(host) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a server that listens on `host` is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reachable(host: str, port: int) -> str:
    """The `host:port` at which this machine reaches a server that listens on `host`."""
    # "All addresses" is no address to connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def claim_ports(host: str, wanted: Mapping[str, int], *, owner: str = "tritonserver") -> dict[str, int]:
    """Check the ports by flag (`{"--http-port": 8000}`) on which `owner` will listen; 0 becomes a free one.

    Raises:
        LaunchError: a port is taken, or wanted twice.
    """
    claimed: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        # Fixed ports first, and all bound until the last is checked, so that a free port is not one of the fixed.
        for flag, port in sorted(wanted.items(), key=lambda item: item[1] == 0):
            if port != 0 and port in claimed.values():
                raise LaunchError(
                    f"Expected a port of its own for {flag}, got {port} twice", hint=f"choose another {flag}"
                )
            probe = held.enter_context(_socket(host))
            try:
                probe.bind((host, port))
            except OSError as error:
                raise LaunchError(
                    f"Expected port {port} on {host} to be free for {owner}, got: {error.strerror}",
                    hint=f"stop what listens there, or choose another port with {flag} (0 takes a free one)",
                ) from error
            claimed[flag] = probe.getsockname()[1]
    return claimed


def _socket(host: str) -> socket.socket:
    probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Like tritonserver: connections of a server that has just stopped occupy the port for a minute.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe
