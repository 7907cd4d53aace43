"""Triton's protocols that are an operator's, closed to its clients.

Triton asks nobody who they are. Any client could make its log say everything, start traces, and name regions of shared
memory, of this service or of any other process of the machine, as its input and output.
"""

from __future__ import annotations

import secrets

from moulin.launch.ports import is_loopback

_OPERATORS = ("logging", "trace")
_SHARED_MEMORY = "shared-memory"
"""Useful to clients of the same machine only."""


def closed_protocols(host: str) -> list[str]:
    """tritonserver's arguments that close them, for a server that listens on `host`: a header opens them that nobody
    is told. Shared memory stays open where only this machine's clients can connect."""
    closed = ",".join(_OPERATORS if is_loopback(host) else (*_OPERATORS, _SHARED_MEMORY))
    key = f"moulin-operator={secrets.token_hex(16)}"
    return [f"--grpc-restricted-protocol={closed}:{key}", f"--http-restricted-api={closed}:{key}"]
