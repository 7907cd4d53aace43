"""Addresses behind the name of a target (NAME=ADDRESS): a place is the same, whether as http:// or as ws://."""

from __future__ import annotations

from moulin.client.gateway_address import GatewayAddress

_AS_HTTP = {"": "http", "ws": "http", "wss": "https"}
_AS_WEBSOCKET = {"": "ws", "http": "ws", "https": "wss"}


def gateway_at(address: str, api_key: str) -> tuple[GatewayAddress, str]:
    """The gateway, or other service with OpenAI's API, at `[SCHEME://]HOST[:PORT][/PATH][#MODEL]`, and the model's
    name, empty where none is said. Raises OptionsError."""
    url, _, model = address.partition("#")
    return GatewayAddress(_with_scheme(url, _AS_HTTP), api_key or None), model


def websocket_at(address: str) -> str:
    """`[SCHEME://]HOST:PORT` as the URL of a WebSocket."""
    return _with_scheme(address, _AS_WEBSOCKET)


def _with_scheme(address: str, schemes: dict[str, str]) -> str:
    scheme, _, rest = address.rpartition("://")
    return f"{schemes.get(scheme.lower(), scheme)}://{rest}"
