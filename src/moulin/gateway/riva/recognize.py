"""`Recognize`: a whole recording, as `POST /v1/audio/transcriptions` hears it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from typing import Any

from moulin.client.served_model import ServedModel
from moulin.decoding.options import DecodingOptions
from moulin.gateway.api_error import ApiError
from moulin.gateway.riva.audio import wav_header
from moulin.gateway.riva.call import Call
from moulin.gateway.riva.messages import RecognizeResponse
from moulin.gateway.riva.results import recognized
from moulin.gateway.riva.wish import Wish
from moulin.gateway.services import Services
from moulin.gateway.upload import Recording, on_disk
from moulin.long_audio.joined_transcript import JoinedTranscript
from moulin.transcript import Transcript


async def recognize(services: Services, call: Call) -> Any:
    """The `RecognizeResponse`."""
    with services.limits.request(call.caller):
        with services.metrics.uploads.track_inprogress():
            request = await _received(services, call)
        wish = Wish.of(request.config)
        model = await _model(services, wish.model)
        options = wish.decoding_options(hotwords=model.uses_hotwords, alternatives=model.gives_alternatives)
        DecodingOptions().updated(options)
        call.ignored = wish.ignored
        with _kept(request.audio, wish) as recording:
            request.ClearField("audio")
            transcript = await _heard(services, call, recording, wish, model, options)
        call.log = {"model": model.name, "audio_sec": transcript.duration_sec}
        response = RecognizeResponse(results=recognized(transcript, wish))
        if request.HasField("id"):
            response.id.CopyFrom(request.id)
        return response


async def _received(services: Services, call: Call) -> Any:
    try:
        async with asyncio.timeout(services.settings.max_upload_sec):
            request = await call.read()
    except TimeoutError:
        raise ApiError(408, f"Expected a request within {services.settings.max_upload_sec:g} s, got none") from None
    if request is None or not request.audio:
        raise ApiError(400, "Expected a request with audio, got none", param="audio")
    return request


async def _model(services: Services, name: str) -> ServedModel:
    """The model of that name, or the default one: clients ask for NVIDIA's models."""
    try:
        return await services.catalog.for_recordings(name or None)
    except ApiError:
        return await services.catalog.for_recordings(None)


@contextmanager
def _kept(audio: bytes, wish: Wish) -> Iterator[Recording]:
    """The recording as a file without a name."""
    parts = (wav_header(audio, wish), audio)
    with ExitStack() as opened:
        with on_disk():
            file = opened.enter_context(TemporaryFile())
            file.writelines(parts)
            file.flush()
        yield Recording("the audio", file.fileno())


async def _heard(
    services: Services,
    call: Call,
    recording: Recording,
    wish: Wish,
    model: ServedModel,
    options: dict[str, Any],
) -> Transcript:
    recordings, joined = services.recordings, JoinedTranscript()
    hear = services.recordings_by_stream.heard if model.streaming else recordings.heard
    async with recordings.decoding(
        recording,
        wish.selection,
        call.caller,
        max_audio_sec=services.settings.max_audio_sec,
        max_utterance_sec=None if model.streaming else model.max_utterance_sec,
    ) as pieces:
        async for piece, heard in hear(pieces, call.caller, model.name, options, call.request_id):
            joined.add(piece, heard)
    return joined.transcript(pieces.decoded_sec, pieces.warnings)
