"""Whose word about the client's address is believed."""

from __future__ import annotations

import pytest

from moulin.gateway.riva.trusted_proxies import TrustedProxies


@pytest.mark.parametrize(
    ("trusted", "peer", "metadata", "client"),
    [
        ((), "10.0.0.1", {"x-forwarded-for": "203.0.113.7"}, "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", {}, "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", {"x-forwarded-for": ""}, "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", {"x-forwarded-for": "203.0.113.7"}, "203.0.113.7"),
        (("10.0.0.1",), "10.0.0.2", {"x-forwarded-for": "203.0.113.7"}, "10.0.0.2"),
        (("10.0.0.0/8",), "10.9.9.9", {"x-forwarded-for": "198.51.100.1, 203.0.113.7, 10.0.0.2"}, "203.0.113.7"),
        (("::1",), "::1", {"x-forwarded-for": "2001:db8::1"}, "2001:db8::1"),
    ],
)
def test_the_client(trusted: tuple[str, ...], peer: str, metadata: dict[str, str], client: str) -> None:
    assert TrustedProxies(trusted).client(peer, metadata) == client
