"""`WS /v1/listen`: a live stream in Deepgram's protocol."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.websockets import WebSocket

from moulin.audio.pcm import RawFormat
from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import MoulinError
from moulin.gateway.access import key_subprotocol
from moulin.gateway.api_error import api_error
from moulin.gateway.deepgram.container import DecodedSocket
from moulin.gateway.deepgram.session import DeepgramSession, HearChannel
from moulin.gateway.deepgram.wish import Wish
from moulin.gateway.error_forms import answer
from moulin.gateway.live_connection import LiveConnection, Socket
from moulin.gateway.live_recognition import LiveRecognition, log_fields
from moulin.gateway.live_socket import CloseCode, LiveSocket
from moulin.gateway.live_steps import Hear
from moulin.gateway.named_model import named_or_default
from moulin.gateway.services import Services
from moulin.live_transcript import StreamUpdate
from moulin.streaming.options import StreamOptions

_DECODED = RawFormat("f32le", SAMPLE_RATE)
"""What a container becomes before the session hears it."""


async def listen_live(services: Services, websocket: WebSocket) -> None:
    """Serve one WebSocket. What cannot be served is refused before it is accepted, as Deepgram does."""
    try:
        wish = Wish.of(websocket.query_params.multi_items(), live=True)
        model = await named_or_default(services.catalog.streaming, wish.model)
        options = wish.stream_options(hotwords=model.uses_hotwords)
        StreamOptions().updated(options)
        headers = services.ignored.note(wish.ignored_with(model))
        with ExitStack() as places:
            for _ in range(wish.channels):
                places.enter_context(services.limits.stream(websocket.state.caller))
                places.enter_context(services.metrics.active_streams.track_inprogress())
            await _serve(services, websocket, wish, model.name, options, headers)
    except MoulinError as error:
        await answer(api_error(error), websocket.scope, websocket.receive, websocket.send)


async def _serve(
    services: Services, websocket: WebSocket, wish: Wish, model: str, options: dict[str, Any], headers: dict[str, str]
) -> None:
    request_id = websocket.state.request_id
    headers = headers | {"dg-request-id": request_id}
    await websocket.accept(
        subprotocol=key_subprotocol(websocket.scope.get("subprotocols") or []),
        headers=[(name.encode(), value.encode()) for name, value in headers.items()],
    )
    socket = DeepgramSocket(websocket)
    recognition = ChannelRecognitions(services, request_id, wish.channels)
    heard = wish if wish.raw is not None else replace(wish, raw=_DECODED)
    async with _decoded(services, socket, is_container=wish.raw is None) as decoded:
        warnings = partial(getattr, decoded, "warnings", ())
        session = DeepgramSession(heard, model, options, request_id, socket.sha256, warnings)
        await LiveConnection(services, decoded, session, recognition).run()
    websocket.state.log = {"model": model, **recognition.log}


@asynccontextmanager
async def _decoded(services: Services, socket: DeepgramSocket, *, is_container: bool) -> AsyncIterator[Socket]:
    """The socket, with samples in the place of a container's bytes."""
    if not is_container:
        yield socket
        return
    async with (
        services.recordings.decoding_live("the audio") as (decoding, feed),
        DecodedSocket(socket, decoding, feed) as decoded,
    ):
        yield decoded


class ChannelRecognitions:
    """The recognition of each channel, as one for a `LiveConnection`."""

    def __init__(self, services: Services, request_id: str, channels: int) -> None:
        self._all = [LiveRecognition(services, request_id) for _ in range(channels)]

    @property
    def log(self) -> dict[str, object]:
        """Fields for the line in the log, of all channels together."""
        return log_fields(math.fsum(each.audio_sec for each in self._all), sum(each.moves for each in self._all))

    async def hear(self, step: Hear) -> StreamUpdate:
        assert isinstance(step, HearChannel)
        return await self._all[step.channel].hear(step)

    async def forget(self) -> None:
        for each in self._all:
            await each.forget()


class DeepgramSocket(LiveSocket):
    """A WebSocket with Deepgram's close codes, which counts what it has received."""

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__(websocket)
        self._digest = hashlib.sha256()

    def sha256(self) -> str:
        """The digest of all bytes of audio so far."""
        return self._digest.hexdigest()

    async def receive(self, timeout_sec: float) -> str | bytes | None:
        message = await super().receive(timeout_sec)
        if isinstance(message, bytes):
            self._digest.update(message)
        return message

    async def close(self, code: int, reason: str) -> None:
        match code:
            case CloseCode.IDLE:
                code, reason = CloseCode.FAILED, f"NET-0001: {reason}"
            case CloseCode.BAD_REQUEST | CloseCode.NOT_FOUND:
                code, reason = CloseCode.SLOW, f"DATA-0000: {reason}"  # 1008, a violation of policy
            case CloseCode.FAILED:
                reason = f"NET-0000: {reason}"
        await super().close(CloseCode(code), reason)
