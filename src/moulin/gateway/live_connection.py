"""The connection of one live client: its session, its socket and its streams on Triton."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable
from typing import Any, Protocol

from moulin.errors import MoulinError
from moulin.gateway.api_error import ApiError, api_error, server_draining
from moulin.gateway.live_socket import ClientGone, CloseCode
from moulin.gateway.live_steps import Event, Find, Finish, Forget, Hear, Session, Step
from moulin.gateway.services import Services
from moulin.gateway.stream_place import StreamPlace
from moulin.live_transcript import StreamUpdate

logger = logging.getLogger(__name__)

REST_SEC = 5.0
"""After this time without audio the stream on Triton is ended, before Triton closes it as idle."""
_LOOK_SEC = 0.05
"""The shortest wait for a message."""
_MAX_FAILURES = 3
"""Consecutive failures of streams after which the connection is closed."""


class _Closing(Exception):
    """A request to close the connection, after its last event was sent."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Socket(Protocol):
    """What a `LiveSocket` does, over another transport. `send` and `receive` raise ClientGone."""

    async def receive(self, timeout_sec: float) -> str | bytes | None: ...

    async def send(self, fields: dict[str, Any]) -> None: ...

    async def close(self, code: CloseCode, reason: str) -> None: ...


class Recognition(Protocol):
    """What a `LiveRecognition` does."""

    async def hear(self, step: Hear) -> StreamUpdate: ...

    async def forget(self) -> None: ...


class LiveConnection:
    """Carries out the session's steps in order; no message is read while a step is carried out."""

    def __init__(
        self,
        services: Services,
        socket: Socket,
        session: Session,
        recognition: Recognition,
        place: StreamPlace | None = None,
    ) -> None:
        """With a `place`, the client may be silent for `session_idle_sec`, and has the place only while it sends audio;
        without one, the caller holds one, and the client may be silent for `stream_idle_sec`."""
        self._services, self._socket, self._session, self._recognition = services, socket, session, recognition
        self._place = place
        self._failures = 0
        self._last_audio = 0.0

    async def run(self) -> None:
        """Serve until the client disconnects or is disconnected."""
        try:
            await self._take(self._session.opening())
            await self._listen()
        except ClientGone:
            pass
        except _Closing as closing:
            await self._socket.close(closing.code, closing.reason)
        except Exception as error:  # after an unexpected exception the client still gets an error event
            logger.exception("A live connection failed")
            await self._last_word(api_error(error))
        finally:
            await self._recognition.forget()

    async def _listen(self) -> None:
        now, settings = asyncio.get_running_loop().time, self._services.settings
        idle_sec = settings.stream_idle_sec if self._place is None else settings.session_idle_sec
        last_message = self._last_audio = now()
        looked = False
        while True:
            rest_sec = min(REST_SEC, settings.stream_idle_sec)
            rests_at = math.inf if self._session.is_resting else self._last_audio + rest_sec
            has_place = self._place is not None and self._place.is_taken
            frees_at = self._last_audio + settings.stream_idle_sec if has_place else math.inf
            ends_at = last_message + idle_sec
            next_at = min(rests_at, frees_at, ends_at)
            drained = self._services.draining.has_begun and self._session.is_resting
            left_sec = 0.0 if drained else next_at - now()
            if left_sec > 0 or not looked:
                # A message may wait where the time has passed unheard: a step took it, or this process was paused.
                looked = left_sec <= 0
                message = await self._receive(max(left_sec, _LOOK_SEC))
                if message is not None:
                    await self._take(self._session.receive(message))
                    last_message = now()
            elif drained:
                await self._end_drained()
            elif next_at == rests_at:
                await self._take(self._session.rest())
            elif next_at == ends_at:
                await self._end_idle(idle_sec)
            elif self._place is not None:
                self._place.release()

    async def _receive(self, timeout_sec: float) -> str | bytes | None:
        """The next message; None after that time, and where no stream is open when the gateway begins to drain."""
        draining = self._services.draining
        if draining.has_begun or not self._session.is_resting:  # else nothing is to be done at once
            return await self._socket.receive(timeout_sec)
        try:
            async with asyncio.timeout(None) as unless_drained:
                with draining.waking(lambda: unless_drained.reschedule(0.0)):
                    return await self._socket.receive(timeout_sec)
        except TimeoutError:
            return None

    async def _end_drained(self) -> None:
        """Close a connection without an open stream, as the gateway stops: the client loses nothing, and connects to
        another. With an error event where it has none of its own for that, as in `_end_idle`."""
        await self._take(self._session.rest())
        stopping = server_draining()
        if self._place is None:
            await self._take([self._session.refused(stopping)])
        raise _Closing(CloseCode.RESTART, stopping.message)

    async def _end_idle(self, idle_sec: float) -> None:
        """Close the connection. Without an error event where that may be after an hour: some clients take any of these
        for the end of their work, but connect again where they are only disconnected."""
        await self._take(self._session.rest())
        idle = ApiError(408, f"Nothing has come for {idle_sec:g} s", code="idle_timeout")
        if self._place is None:
            await self._take([self._session.refused(idle)])
        raise _Closing(CloseCode.IDLE, idle.message)

    async def _take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case Event():
                    await self._socket.send(step.fields)
                case Hear():
                    await self._hear(step)
                case Find():
                    await self._find(step)
                case Forget():
                    await self._recognition.forget()
                case Finish(error):
                    raise _Closing(CloseCode.of(error), error.message) if error else _Closing(CloseCode.DONE, "")

    async def _hear(self, step: Hear) -> None:
        now = asyncio.get_running_loop().time
        self._last_audio = now()
        try:
            if self._place is not None:
                self._place.take()
            update = await self._recognition.hear(step)
            self._last_audio = now()  # the time of a busy server is no silence of the client
        except MoulinError as error:
            await self._take(self._session.failed(error))
            refusal = api_error(error)
            self._failures += 1
            if refusal.status in (429, 503):
                raise _Closing(CloseCode.TRY_LATER, refusal.message) from error
            if self._failures >= _MAX_FAILURES:
                raise _Closing(CloseCode.of(refusal), refusal.message) from error
        else:
            self._failures = 0
            await self._take(self._session.heard(step, update))

    async def _find(self, step: Find) -> None:
        try:
            step.model = await self._services.catalog.streaming(step.name)
        except MoulinError as error:
            step.refusal = api_error(error)

    async def _last_word(self, error: ApiError) -> None:
        try:
            await self._take([self._session.refused(error)])
        except ClientGone:
            return
        await self._socket.close(CloseCode.of(error), error.message)
