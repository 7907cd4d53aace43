"""`POST /v1/realtime/client_secrets` and the older `POST /v1/realtime/transcription_sessions`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from moulin.gateway.api_error import ApiError
from moulin.gateway.client_secrets import FEWEST_SEC, MOST_SEC, USUAL_SEC, new_secret
from moulin.gateway.realtime_config import RealtimeConfig
from moulin.gateway.realtime_session import random_id
from moulin.gateway.services import Services
from moulin.quoting import quoted
from moulin.untrusted_json import JsonError, read_json

_OLDER_SEC = 60
"""OpenAI's, of the older form."""
_MOST_BYTES = 1 << 17
_ANCHOR = "created_at"
_FIELDS = {"session", "expires_after"}


def routes(services: Services) -> list[BaseRoute]:
    async def client_secrets(request: Request) -> Response:
        body = await _body(request)
        valid_sec, session = _valid_sec(body.get("expires_after")), body.get("session") or {}
        config = await configured(services, session, older=False)
        value, expires_at = new_secret(_api_key(request), session, older=False, valid_sec=valid_sec)
        shown = {**config.to_dict(random_id("sess")), "expires_at": expires_at}
        return JSONResponse(
            {"value": value, "expires_at": expires_at, "session": shown},
            headers=services.ignored.note([*config.ignored, *sorted(body.keys() - _FIELDS)]),
        )

    async def transcription_sessions(request: Request) -> Response:
        session = await _body(request)
        config = await configured(services, session, older=True)
        value, expires_at = new_secret(_api_key(request), session, older=True, valid_sec=_OLDER_SEC)
        secret = {"value": value, "expires_at": expires_at}
        return JSONResponse(
            {**config.to_older_dict(random_id("sess")), "client_secret": secret},
            headers=services.ignored.note(config.ignored),
        )

    return [
        Route("/v1/realtime/client_secrets", client_secrets, methods=["POST"]),
        Route("/v1/realtime/transcription_sessions", transcription_sessions, methods=["POST"]),
    ]


async def configured(services: Services, session: Any, *, older: bool) -> RealtimeConfig:
    """The settings of a session that begins with those of `session`. Raises ApiError, ServerUnavailable."""
    begun = RealtimeConfig.of_name(None, await services.catalog.streaming(None))
    config = begun.updated_older(session) if older else begun.updated(session)
    if config.model != begun.model:
        config = config.served_by(await services.catalog.streaming(config.model))
    return config.with_languages_checked(begun)


def _api_key(request: Request) -> bytes | None:
    """The API key of the request, which `Access` has found; None where there are none."""
    return getattr(request.state, "api_key", None)


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object in the body; empty where there is none. Raises ApiError."""
    received = bytearray()
    async for block in request.stream():
        received += block
        if len(received) > _MOST_BYTES:
            raise ApiError(413, f"Expected at most {_MOST_BYTES:,} bytes, got more", code="body_too_large")
    try:
        body = read_json(bytes(received), most_bytes=_MOST_BYTES) if received.strip() else {}
    except JsonError as error:
        raise ApiError(400, f"The body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, f"Expected a JSON object, got {type(body).__name__}", code="invalid_json")
    return body


def _valid_sec(expires_after: Any) -> int:
    if expires_after is None:
        return USUAL_SEC
    seconds = expires_after.get("seconds", USUAL_SEC) if isinstance(expires_after, dict) else None
    if seconds is not None and (anchor := expires_after.get("anchor", _ANCHOR)) != _ANCHOR:
        raise ApiError(
            400,
            f"Expected expires_after to have the anchor {_ANCHOR}, got {quoted(anchor)}",
            code="invalid_value",
            param="expires_after",
        )
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not FEWEST_SEC <= seconds <= MOST_SEC:
        raise ApiError(
            400,
            f"Expected expires_after to have seconds from {FEWEST_SEC} to {MOST_SEC:,}, got {quoted(expires_after)}",
            code="invalid_value",
            param="expires_after",
        )
    return seconds
