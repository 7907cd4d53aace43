"""Addresses of Triton servers: fixed ones, and those of a name in DNS, which may change."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address

from moulin.gateway.metrics import Metrics
from moulin.gateway.server_names import Name

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""The IP addresses of a name. Raises OSError where there are none, or nobody knows."""

_RESOLVED_SEC = 4.0
"""The time after which a name server that has not answered counts as one that has failed."""


class Discovery:
    """The servers' addresses as `HOST:PORT`, fixed ones first. What a name server does not know changes nothing."""

    def __init__(self, given: Sequence[str], resolve: Resolve, metrics: Metrics) -> None:
        """`given` are addresses, and names as `Name` reads them. Raises OptionsError."""
        self._given, self._resolve, self._metrics = given, resolve, metrics
        self._names = {text: name for text in given if (name := Name.of(text)) is not None}
        self._known: dict[str, tuple[str, ...]] = dict.fromkeys(self._names, ())

    @property
    def changes(self) -> bool:
        """Whether the addresses may change."""
        return bool(self._names)

    async def look(self) -> None:
        """Ask for the addresses of all names."""
        await asyncio.gather(*(self._look(text, name) for text, name in self._names.items()))

    def addresses(self) -> list[str]:
        """The servers' addresses as far as they are known, each once."""
        found = (address for text in self._given for address in self._known.get(text, (text,)))
        return list(dict.fromkeys(found))

    async def _look(self, text: str, name: Name) -> None:
        outcome = "failed"
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_RESOLVED_SEC):
                hosts = await self._resolve(name.name)
            outcome = "answered" if hosts else "empty"
            if hosts:
                self._known[text] = tuple(f"{_in_address(host)}:{name.port}" for host in sorted(set(hosts)))
        self._metrics.resolutions.labels(outcome).inc()


async def resolve(name: str) -> Sequence[str]:
    """The addresses of `name` by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _in_address(host: str) -> str:
    return f"[{host}]" if ip_address(host.partition("%")[0]).version == 6 else host
