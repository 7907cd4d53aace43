"""A check whether an HTTP server answers."""

from __future__ import annotations

import http.client

_TIMEOUT_SEC = 2.0


def answers(address: str, path: str) -> bool:
    """Whether a GET of `path` at `host:port` succeeds."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_TIMEOUT_SEC)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
