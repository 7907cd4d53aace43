"""Live speech: `WS /v1/realtime`, `WS /v1/stream` and the web page."""

from __future__ import annotations

from starlette.routing import BaseRoute

from moulin.gateway.services import Services


def routes(_services: Services) -> list[BaseRoute]:
    return []
