from __future__ import annotations

import pytest

from moulin.errors import OptionsError
from moulin.evaluate.targets.addresses import gateway_at, websocket_at


@pytest.mark.parametrize(
    ("address", "rest", "live"),
    [
        ("asr:9000", "http://asr:9000/v1/x", "ws://asr:9000/v1/x"),
        ("http://asr:9000", "http://asr:9000/v1/x", "ws://asr:9000/v1/x"),
        ("ws://asr:9000", "http://asr:9000/v1/x", "ws://asr:9000/v1/x"),
        ("https://asr", "https://asr/v1/x", "wss://asr/v1/x"),
        ("WSS://asr/v1/", "https://asr/v1/x", "wss://asr/v1/x"),
        ("https://host/speech/v1", "https://host/speech/v1/x", "wss://host/speech/v1/x"),
        ("[::1]:9000", "http://[::1]:9000/v1/x", "ws://[::1]:9000/v1/x"),
    ],
)
def test_a_place_is_the_same_however_it_is_written(address: str, rest: str, live: str) -> None:
    gateway, model = gateway_at(f"{address}#digits en", "secret")
    scheme, host = rest.split("://")
    assert (scheme == "https", gateway.path("x")) == (gateway.is_secure, host[host.index("/") :])
    assert gateway.websocket("x") == live
    assert (model, gateway.headers) == ("digits en", {"Authorization": "Bearer secret"})


def test_nothing_is_said_of_key_and_model() -> None:
    gateway, model = gateway_at("asr:9000", "")
    assert (gateway.headers, model) == ({}, "")


@pytest.mark.parametrize("address", ["ftp://x", "http://", "ws://:9000", "asr:port", "http://x?model=a", ""])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(OptionsError, match="Expected a gateway's URL"):
        gateway_at(address, "")


@pytest.mark.parametrize(
    ("address", "url"),
    [("peer:6006", "ws://peer:6006"), ("http://peer:6006", "ws://peer:6006"), ("wss://peer", "wss://peer")],
)
def test_a_websocket(address: str, url: str) -> None:
    assert websocket_at(address) == url
