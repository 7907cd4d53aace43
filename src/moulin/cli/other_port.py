"""An address at which something else answers than Triton's gRPC: what it is, and how it is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from moulin.errors import ServerUnavailable


@contextmanager
def other_ports_recognised(address: str) -> Iterator[None]:
    """Raises ServerUnavailable that names what answers at HOST:PORT, in place of one that says that gRPC failed."""
    try:
        yield
    except ServerUnavailable as error:
        raise _recognised(address) or error from error


def _recognised(address: str) -> ServerUnavailable | None:
    from moulin.launch.answers import answers

    if not address.rpartition(":")[2].isdecimal() or "/" in address:
        return None
    if answers(address, "/v2"):
        return ServerUnavailable(
            f"Expected Triton's gRPC at {address}, got its HTTP", hint="its gRPC port is another, 8001 by default"
        )
    if answers(address, "/healthz"):
        return ServerUnavailable(
            f"Expected Triton's gRPC at {address}, got a gateway",
            hint=f"name it with its scheme: --url http://{address}",
        )
    return None
