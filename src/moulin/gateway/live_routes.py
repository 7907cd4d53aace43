"""Live speech: `WS /v1/realtime`, `WS /v1/stream` and the web page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_args

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from moulin.errors import AudioError, MoulinError
from moulin.gateway.api_error import ApiError, api_error
from moulin.gateway.client_secret_routes import configured
from moulin.gateway.client_secrets import ClientSecret
from moulin.gateway.form_fields import given_twice
from moulin.gateway.live_connection import LiveConnection
from moulin.gateway.live_recognition import LiveRecognition
from moulin.gateway.live_session import Encoding, LiveSession
from moulin.gateway.live_socket import ClientGone, CloseCode, LiveSocket
from moulin.gateway.live_steps import Session
from moulin.gateway.page import page_routes
from moulin.gateway.realtime_config import RealtimeConfig
from moulin.gateway.realtime_session import RealtimeSession, realtime_refusal
from moulin.gateway.services import Services
from moulin.gateway.stream_place import StreamPlace
from moulin.quoting import quoted

_OpenSession = Callable[[Services, WebSocket], Awaitable[Session]]
"""A function that opens a session; raises MoulinError for a client that cannot be served."""
_Refusal = Callable[[ApiError], dict[str, Any]]


def routes(services: Services) -> list[BaseRoute]:
    async def realtime(websocket: WebSocket) -> None:
        """OpenAI's realtime transcription session."""
        await _serve(services, websocket, _realtime_session, realtime_refusal, place_at_once=False)

    async def stream(websocket: WebSocket) -> None:
        """Binary PCM in, JSON out."""
        await _serve(services, websocket, _live_session, _live_refusal, place_at_once=True)

    return [
        WebSocketRoute("/v1/realtime", realtime),
        WebSocketRoute("/v1/stream", stream),
        *page_routes(history=services.settings.history),
    ]


async def _serve(
    services: Services, websocket: WebSocket, open_session: _OpenSession, refusal: _Refusal, *, place_at_once: bool
) -> None:
    """Serve one WebSocket. An error is sent after accepting, because browsers hide a refusal's status and body.

    `place_at_once`: it has a place among the streams before there is audio, so that one that would be refused then is
    refused now. Clients of the other kind connect beforehand, and keep the connection.
    """
    socket = LiveSocket(websocket)
    await socket.accept()
    try:
        place = StreamPlace(services, websocket.state.caller)
        with services.limits.session(websocket.state.caller), place:
            if place_at_once:
                place.take()
            session = await open_session(services, websocket)
            recognition = LiveRecognition(services, websocket.state.request_id)
            await LiveConnection(services, socket, session, recognition, place).run()
            websocket.state.log = recognition.log
    except MoulinError as error:
        refused = api_error(error)
        try:
            await socket.send(refusal(refused))
        except ClientGone:
            return
        await socket.close(CloseCode.of(refused), refused.message)


def _live_refusal(error: ApiError) -> dict[str, Any]:
    return LiveSession.refused(error).fields


def _parameters(websocket: WebSocket) -> dict[str, str]:
    """The URL's parameters. Raises ApiError for one that has two values."""
    found: dict[str, str] = {}
    for name, value in websocket.query_params.multi_items():
        if found.setdefault(name, value) != value:
            raise given_twice(name, found[name], value)
    return found


async def _realtime_session(services: Services, websocket: WebSocket) -> Session:
    query = _parameters(websocket)
    older = "realtime=v1" in websocket.headers.get("openai-beta", "")
    secret: ClientSecret | None = websocket.state.client_secret
    if secret is not None:
        config = await configured(services, secret.session, older=secret.older)
        return RealtimeSession(config, older=older or secret.older, ignored=services.ignored)
    refusal = None
    try:
        model = await services.catalog.streaming(query.get("model"))
    except ApiError as error:  # the client can still choose another with session.update
        model, refusal = await services.catalog.streaming(None), error
    config = RealtimeConfig.of_name(query.get("model"), model)
    return RealtimeSession(config, older=older, refusal=refusal, ignored=services.ignored)


async def _live_session(services: Services, websocket: WebSocket) -> Session:
    query = _parameters(websocket)
    unknown = set(query) - {"model", "encoding", "sample_rate"}
    if unknown:
        raise ApiError(
            400,
            f"Unknown parameter: {quoted(min(unknown))}",
            code="unknown_parameter",
            param=min(unknown),
            hint="the URL's parameters are model, encoding and sample_rate; options are sent as a message",
        )
    encoding = _choice(query, "encoding", get_args(Encoding), "s16le")
    rate = _integer(query, "sample_rate", 16_000)
    model = await services.catalog.streaming(query.get("model"))
    try:
        return LiveSession(model.name, encoding, rate)
    except AudioError as error:
        raise ApiError(400, error.message, code="invalid_value", param="sample_rate", hint=error.hint) from None


def _choice(query: Mapping[str, str], name: str, choices: tuple[Any, ...], default: Any) -> Any:
    value = query.get(name, default)
    if value not in choices:
        raise ApiError(
            400,
            f"Expected {name} to be one of {', '.join(choices)}, got {quoted(value)}",
            code="invalid_value",
            param=name,
        )
    return value


def _integer(query: Mapping[str, str], name: str, default: int) -> int:
    value = query.get(name, str(default))
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise ApiError(400, f"Expected {name} to be a number, got {quoted(value)}", code="invalid_value", param=name)
    return int(value)
