"""How many connections a gateway process can hold: fewer than its file descriptors, and what each may need with it."""

from __future__ import annotations

import logging
import os

from moulin.gateway.server_names import Name
from moulin.gateway.settings import GatewaySettings
from moulin.launch.descriptors import expect_descriptors

logger = logging.getLogger(__name__)

RESERVE = 16
"""Connections beyond the limit for health and metrics, which a full gateway still answers."""
_USUAL = 4096
_FEWEST = 16
_BASE = 96
"""Descriptors of the process itself: 15 at rest, those of the decoders' processes, and room for libraries'."""
_PER_SERVER = 8
_BY_NAME = 32
"""Servers for which there is room behind each name in DNS."""
_PER_CORE = 4
_PER_UPLOAD = 3
"""Descriptors of a recording besides its connection: the file that it is received into, and its decoder's."""


def http_connections(settings: GatewaySettings) -> int:
    """Those of `connection_limit` that are not Riva's."""
    return connection_limit(settings) - (riva_connections(settings) if settings.riva_port is not None else 0)


def riva_connections(settings: GatewaySettings) -> int:
    """Those of `connection_limit` that Riva's gRPC may hold: half."""
    return max(1, connection_limit(settings) // 2)


def connection_limit(settings: GatewaySettings) -> int:
    """The connections that the gateway may hold; raises this process's limit on open files.

    That is `max_connections`, or as many as the requests and streams that are allowed may need. Raises LaunchError
    where there are not enough descriptors for what was asked for, with the number that would do.
    """
    wanted = wanted_connections(settings)
    least = _FEWEST if _is_usual(settings) else _asked_for(settings)
    limit = expect_descriptors(_needed(least, settings), f"{_what(settings)} of the gateway")
    usable = limit - _base(settings)
    # Every upload has a connection; connections beyond the number of uploads need one descriptor each.
    all_uploads = (1 + _PER_UPLOAD) * settings.max_requests
    possible = usable - _PER_UPLOAD * settings.max_requests if usable >= all_uploads else usable // (1 + _PER_UPLOAD)
    if possible < _asked_for(settings):
        logger.warning("%d open files (ulimit -n) leave %d connections, fewer than usual", limit, possible)
    return min(wanted, possible)


def wanted_connections(settings: GatewaySettings) -> int:
    """`connection_limit` where there are descriptors enough."""
    return settings.max_connections or max(_USUAL, 2 * (settings.max_requests + settings.max_streams))


def _is_usual(settings: GatewaySettings) -> bool:
    """Whether nobody asked for more than usual; else fewer places than usual will do as well."""
    usual = type(settings).model_fields
    return settings.max_connections is None and all(
        getattr(settings, name) <= usual[name].default for name in ("max_requests", "max_streams")
    )


def _asked_for(settings: GatewaySettings) -> int:
    return settings.max_connections or settings.max_requests + settings.max_streams


def _what(settings: GatewaySettings) -> str:
    return f"{_FEWEST if _is_usual(settings) else _asked_for(settings)} connections"


def _needed(connections: int, settings: GatewaySettings) -> int:
    return _base(settings) + connections + _PER_UPLOAD * min(connections, settings.max_requests)


def _base(settings: GatewaySettings) -> int:
    return _BASE + RESERVE + _PER_SERVER * _servers(settings) + _PER_CORE * min(8, os.cpu_count() or 1)


def _servers(settings: GatewaySettings) -> int:
    return sum(_BY_NAME if Name.of(address) else 1 for address in settings.triton)
