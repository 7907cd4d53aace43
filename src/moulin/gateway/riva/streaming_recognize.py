"""`StreamingRecognize`: a live stream, as `WS /v1/stream` hears it."""

from __future__ import annotations

import asyncio
from typing import Any

from moulin.gateway.api_error import ApiError
from moulin.gateway.live_connection import LiveConnection
from moulin.gateway.live_recognition import LiveRecognition
from moulin.gateway.live_socket import ClientGone, CloseCode
from moulin.gateway.named_model import named_or_default
from moulin.gateway.riva.call import Call
from moulin.gateway.riva.messages import StreamingRecognizeResponse
from moulin.gateway.riva.session import END, RivaSession
from moulin.gateway.riva.wish import Wish, expect_language
from moulin.gateway.services import Services
from moulin.streaming.options import StreamOptions

_SLOW_SEC = 20.0
"""The time after which a client with an unread response counts as gone."""


async def streaming_recognize(services: Services, call: Call) -> None:
    """Write the responses until the stream ends. Raises the error that ends it."""
    with services.limits.stream(call.caller), services.metrics.active_streams.track_inprogress():
        first = await _first(services, call)
        wish = Wish.of(first.streaming_config.config)
        if wish.each_channel and wish.channels > 1:
            raise ApiError(
                400,
                "Expected a stream of one transcript, got enable_separate_recognition_per_channel",
                param="enable_separate_recognition_per_channel",
                hint="open a stream for each channel, or send the recording to Recognize",
            )
        model = await named_or_default(services.catalog.streaming, wish.model)
        options = wish.stream_options(hotwords=model.uses_hotwords, alternatives=model.gives_alternatives)
        StreamOptions().updated(options)
        expect_language(wish, model.languages)
        call.ignored = services.ignored.note(wish.ignored)
        call.log = {"model": model.name}
        session = RivaSession(wish, first.streaming_config.interim_results, model.name, options)
        recognition = LiveRecognition(services, call.request_id)
        socket = _CallSocket(call, first)
        try:
            await LiveConnection(services, socket, session, recognition).run()
        finally:
            socket.leave()
            call.log |= recognition.log
    if socket.error is not None:
        raise socket.error


async def _first(services: Services, call: Call) -> Any:
    try:
        async with asyncio.timeout(services.settings.stream_idle_sec):
            first = await call.read()
    except TimeoutError:
        raise ApiError(408, f"Nothing has come for {services.settings.stream_idle_sec:g} s") from None
    if first is None or first.WhichOneof("streaming_request") != "streaming_config":
        raise ApiError(400, "Expected a streaming_config first, got none", param="streaming_config")
    return first


class _CallSocket:
    """The call as a `Socket`: audio in, results out. `error` is what ended it."""

    def __init__(self, call: Call, first: Any) -> None:
        self._call, self._first = call, first
        self._reading: asyncio.Task[Any] | None = None
        self.error: ApiError | None = None

    async def receive(self, timeout_sec: float) -> str | bytes | None:
        # A read that is cancelled could not be asked for again, so it goes on beyond the timeout.
        self._reading = self._reading or asyncio.create_task(self._call.read())
        done, _ = await asyncio.wait({self._reading}, timeout=timeout_sec)
        if not done:
            return None
        reading, self._reading = self._reading, None
        try:
            request = reading.result()
        except ApiError as error:
            self.error = error
            raise ClientGone from None
        return END if request is None else bytes(request.audio_content)

    async def send(self, fields: dict[str, Any]) -> None:
        if "error" in fields:
            self.error = fields["error"]
            return
        response = StreamingRecognizeResponse(results=[fields["result"]])
        if self._first.HasField("id"):
            response.id.CopyFrom(self._first.id)
        try:
            async with asyncio.timeout(_SLOW_SEC):
                await self._call.write(response)
        except TimeoutError:
            self.error = ApiError(408, f"The client has read nothing for {_SLOW_SEC:g} s")
            raise ClientGone from None

    async def close(self, code: CloseCode, reason: str) -> None:
        """Nothing: the call ends with its handler, by `error`."""
        del code, reason

    def leave(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
