"""`POST /v1/audio/transcriptions`: transcription of an uploaded file."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, suppress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from moulin.errors import AudioError, AudioTooLong
from moulin.gateway.api_error import ApiError, api_error
from moulin.gateway.services import Services
from moulin.gateway.transcription_formats import (
    delta_event,
    done_event,
    event,
    response,
    verbose_done_event,
    words_event,
)
from moulin.gateway.transcription_request import TranscriptionRequest, transcription_request
from moulin.gateway.upload import Recording, received_form, recording_in
from moulin.gateway.warnings_header import warnings_header
from moulin.gateway.while_connected import CLIENT_GONE, while_connected
from moulin.long_audio.joined_transcript import JoinedTranscript

logger = logging.getLogger(__name__)


class Transcriptions:
    """The endpoint."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def transcribe(self, request: Request) -> Response:
        """The response to a request. Raises MoulinError, which the application turns into a response."""
        async with AsyncExitStack() as place:
            place.enter_context(self._services.limits.request(request.state.caller))
            try:
                with self._services.metrics.uploads.track_inprogress():
                    settings = self._services.settings
                    receiving = received_form(
                        request,
                        max_bytes=settings.max_upload_bytes,
                        max_sec=settings.max_upload_sec,
                        min_bytes_per_sec=settings.min_upload_bytes_per_sec,
                    )
                    form = await place.enter_async_context(receiving)
                wanted = transcription_request(form, request.query_params.multi_items())
                recording = recording_in(form)
                transcription = _Transcription(self._services, request, wanted, recording)
                await transcription.begin()
                if not wanted.stream:
                    return await while_connected(request.receive, transcription.answer())
            except ClientDisconnect:
                return Response(status_code=CLIENT_GONE)
            return _EventStream(transcription.events(), place.pop_all(), transcription.headers)
        raise AssertionError("unreachable")


class _EventStream(StreamingResponse):
    """Server-sent events. Closes `place`, and with it the file, after the last event or when the client disconnects."""

    def __init__(self, events: AsyncGenerator[bytes], place: AsyncExitStack, headers: Mapping[str, str]) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", **headers}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events, self._place = events, place

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        async with self._place, aclosing(self._events):
            with suppress(ClientDisconnect):
                await while_connected(receive, self.stream_response(send))


class _Transcription:
    """The transcription of one recording."""

    def __init__(
        self, services: Services, request: Request, wanted: TranscriptionRequest, recording: Recording
    ) -> None:
        self._services, self._request, self._wanted, self._recording = services, request, wanted, recording
        self._joined = JoinedTranscript()

    async def begin(self) -> None:
        """Find the model and check the options. Raises ApiError, OptionsError, ServerUnavailable."""
        self._wanted.decoding_changes(with_prompt=False)
        self._model = await self._services.catalog.for_recordings(self._wanted.model)
        self.headers = self._services.ignored.note(self._wanted.ignored(self._model))
        if self._wanted.language is None and len(self._model.languages) == 1:
            self._wanted = self._wanted.model_copy(update={"language": self._model.languages[0]})
        self._changes = self._wanted.decoding_changes(with_prompt=self._model.uses_hotwords)

    async def answer(self) -> Response:
        """The whole transcript."""
        async for _ in self._deltas():
            pass
        answer = response(self._transcript, self._wanted)
        answer.headers.update({**self.headers, **warnings_header(self._transcript.warnings)})
        return answer

    async def events(self) -> AsyncGenerator[bytes]:
        """Events with the transcript as it grows, then with all of it, or with an error."""
        try:
            if self._wanted.response_format == "verbose_json":
                async for delta in self._deltas():
                    yield words_event(delta, self._joined.added, self._heard_sec, self._pieces.taken_peaks())
                yield verbose_done_event(self._transcript, self._wanted, self._pieces.taken_peaks())
                return
            async for delta in self._deltas():
                if delta:
                    yield delta_event(delta)
            yield done_event(self._transcript, self._wanted)
        except Exception as error:
            refusal = api_error(error)
            if refusal.code == "internal_error":
                logger.exception("The gateway failed")
            yield event(refusal.body())

    async def _deltas(self) -> AsyncIterator[str]:
        """The text added by each piece."""
        about, recordings, model = self._request.state, self._services.recordings, self._model
        hear = self._services.recordings_by_stream.heard if model.streaming else recordings.heard
        try:
            async with recordings.decoding(
                self._recording,
                self._wanted.selection,
                about.caller,
                max_audio_sec=self._services.settings.max_audio_sec,
                max_utterance_sec=None if model.streaming else model.max_utterance_sec,
                peaks="peaks" in self._wanted.include,
            ) as pieces:
                self._pieces = pieces
                found = hear(pieces, about.caller, model.name, self._changes, about.request_id)
                async for piece, heard in found:
                    text = self._joined.add(piece, heard)
                    self._heard_sec = max([piece.end_sec, *(word.end_sec for word in self._joined.added[-1:])])
                    yield text
        except AudioError as error:
            raise audio_refusal(error) from error
        self._transcript = self._joined.transcript(pieces.decoded_sec, pieces.warnings)
        about.log = {"model": self._model.name, "audio_sec": round(pieces.decoded_sec, 3)}


def audio_refusal(error: AudioError) -> ApiError:
    too_long = isinstance(error, AudioTooLong)
    return ApiError(
        413 if too_long else 400,
        error.message,
        code="audio_too_long" if too_long else "invalid_audio",
        param="file",
        hint=error.hint,
    )
