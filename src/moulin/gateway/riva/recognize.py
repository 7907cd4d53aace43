"""`Recognize`: a whole recording, as `POST /v1/audio/transcriptions` hears it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from typing import Any

from moulin.audio.containers import SNIFFED_BYTES, container_of
from moulin.audio.wav_header import wav_header
from moulin.decoding.options import DecodingOptions
from moulin.gateway.api_error import ApiError
from moulin.gateway.named_model import named_or_default
from moulin.gateway.riva.call import Call
from moulin.gateway.riva.messages import RecognizeResponse
from moulin.gateway.riva.results import recognized
from moulin.gateway.riva.wish import Wish, expect_language
from moulin.gateway.services import Services
from moulin.gateway.upload import Recording, on_disk
from moulin.gateway.whole_recording import heard_recording


async def recognize(services: Services, call: Call) -> Any:
    """The `RecognizeResponse`."""
    with services.limits.request(call.caller):
        with services.metrics.uploads.track_inprogress():
            request = await _received(services, call)
        wish = Wish.of(request.config)
        model = await named_or_default(services.catalog.for_recordings, wish.model)
        options = wish.decoding_options(hotwords=model.uses_hotwords, alternatives=model.gives_alternatives)
        DecodingOptions().updated(options)
        expect_language(wish, model.languages)
        call.ignored = services.ignored.note(wish.ignored)
        with _kept(request.audio, wish) as recording:
            request.ClearField("audio")
            transcript = await heard_recording(
                services,
                recording,
                wish.selection,
                model,
                options,
                caller=call.caller,
                request_id=call.request_id,
            )
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


@contextmanager
def _kept(audio: bytes, wish: Wish) -> Iterator[Recording]:
    """The recording as a file without a name."""
    header = b"" if container_of(audio[:SNIFFED_BYTES]) else wav_header(wish.raw, len(audio))
    with ExitStack() as opened:
        with on_disk():
            file = opened.enter_context(TemporaryFile())
            file.writelines((header, audio))
            file.flush()
        yield Recording("the audio", file.fileno())
