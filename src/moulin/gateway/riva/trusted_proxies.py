"""The client's address behind a reverse proxy, as REST takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from uvicorn.middleware.proxy_headers import _TrustedHosts

_FORWARDED = "x-forwarded-for"


class TrustedProxies:
    """The proxies that are believed; the rule is uvicorn's, which REST goes by."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._trusted = _TrustedHosts(list(addresses)) if addresses else None

    def client(self, peer: str, metadata: Mapping[str, str]) -> str:
        """The address that a trusted `peer` names in `x-forwarded-for`, else `peer`."""
        forwarded = metadata.get(_FORWARDED)
        if self._trusted is None or not forwarded or peer not in self._trusted:
            return peer
        return self._trusted.get_trusted_client_address(forwarded)[0] or peer
