"""`POST /v1/audio/transcriptions`: transcription of an uploaded file."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from moulin.audio.recording import opened_recordings
from moulin.errors import AudioError, AudioTooLong
from moulin.gateway.api_error import ApiError, api_error
from moulin.gateway.services import Services
from moulin.gateway.transcription_formats import delta_event, done_event, event, response
from moulin.gateway.transcription_request import TranscriptionRequest, transcription_request
from moulin.gateway.upload import Recording, received_form, recording_in
from moulin.long_audio.joined_transcript import JoinedTranscript
from moulin.long_audio.recording_pieces import RecordingPieces
from moulin.transcript import Transcript

logger = logging.getLogger(__name__)

_CLIENT_GONE = 499
"""nginx's status for a client that has disconnected; it appears in the log only."""


class Transcriptions:
    """The endpoint."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def transcribe(self, request: Request) -> Response:
        """The response to a request. Raises MoulinError, which the application turns into a response."""
        async with AsyncExitStack() as place:
            place.enter_context(self._services.limits.request())
            try:
                with self._services.metrics.uploads.track_inprogress():
                    settings = self._services.settings
                    receiving = received_form(
                        request, max_bytes=settings.max_upload_bytes, max_sec=settings.max_upload_sec
                    )
                    form = await place.enter_async_context(receiving)
                wanted, recording = transcription_request(form), recording_in(form)
                transcription = _Transcription(self._services, request, wanted, recording)
                await transcription.begin()
                if not wanted.stream:
                    return await transcription.answer()
            except ClientDisconnect:
                return Response(status_code=_CLIENT_GONE)
            return _EventStream(transcription.events(), place.pop_all())
        raise AssertionError("unreachable")


class _EventStream(StreamingResponse):
    """Server-sent events. Closes `place`, and with it the file, after the last event or when the client disconnects."""

    def __init__(self, events: AsyncGenerator[bytes], place: AsyncExitStack) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events, self._place = events, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._place, aclosing(self._events):
            await super().__call__(scope, receive, send)


class _Transcription:
    """The transcription of one recording."""

    def __init__(
        self, services: Services, request: Request, wanted: TranscriptionRequest, recording: Recording
    ) -> None:
        self._services, self._request, self._wanted, self._recording = services, request, wanted, recording
        self._joined = JoinedTranscript()

    async def begin(self) -> None:
        """Find the model and check the options. Raises ApiError, OptionsError, ServerUnavailable."""
        self._changes = self._wanted.decoding_changes
        self._model = await self._services.catalog.offline(self._wanted.model)
        opened = partial(
            opened_recordings,
            self._recording.path,
            self._wanted.selection,
            max_duration_sec=self._services.settings.max_audio_sec,
            name=self._recording.name,
        )
        self._pieces = RecordingPieces(opened, self._wanted.selection, max_utterance_sec=self._model.max_utterance_sec)

    async def answer(self) -> Response:
        """The whole transcript. Raises ClientDisconnect as soon as the client has disconnected."""
        async for _ in self._deltas():
            if await self._request.is_disconnected():
                raise ClientDisconnect
        return response(self._transcript(), self._wanted)

    async def events(self) -> AsyncGenerator[bytes]:
        """Events with the transcript as it grows, then with all of it, or with an error."""
        try:
            async for delta in self._deltas():
                if delta:
                    yield delta_event(delta)
            yield done_event(self._transcript(), self._wanted)
        except Exception as error:
            refusal = api_error(error)
            if refusal.code == "internal_error":
                logger.exception("The gateway failed")
            yield event(refusal.body())

    def _transcript(self) -> Transcript:
        return self._joined.transcript(self._pieces.decoded_sec, self._pieces.warnings)

    async def _deltas(self) -> AsyncIterator[str]:
        """The text added by each piece."""
        request_id = self._request.state.request_id
        try:
            async with self._services.recordings.turn():
                async for piece, heard in self._services.recordings.heard(
                    self._pieces, self._model.name, self._changes, request_id
                ):
                    yield self._joined.add(piece, heard)
        except AudioError as error:
            raise _audio_refusal(error) from error
        self._request.state.log = {
            "model": self._model.name,
            "audio_sec": round(self._pieces.decoded_sec, 3),
        }


def _audio_refusal(error: AudioError) -> ApiError:
    too_long = isinstance(error, AudioTooLong)
    return ApiError(
        413 if too_long else 400,
        error.message,
        code="audio_too_long" if too_long else "invalid_audio",
        param="file",
        hint=error.hint,
    )
