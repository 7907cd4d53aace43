"""Names of Triton servers in DNS, as an operator writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moulin.client.protocol import check_url
from moulin.errors import OptionsError
from moulin.quoting import quoted

_DNS = re.compile(r"dns:(?P<name>[^:/\s]+):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Name:
    """A name in DNS each of whose addresses is a server, as `dns:NAME:PORT` says it."""

    name: str
    port: int

    @classmethod
    def of(cls, text: str) -> Name | None:
        """None for an address HOST:PORT. Raises OptionsError for what is neither."""
        if not text.startswith("dns:"):
            check_url(text)
            return None
        match = _DNS.fullmatch(text)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise OptionsError(
                f"Expected servers by their name as dns:NAME:PORT, got {quoted(text)}",
                hint="for example dns:moulin.default.svc.cluster.local:8001, with the port of gRPC",
            )
        return cls(match["name"], int(match["port"]))
