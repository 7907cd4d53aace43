"""`POST /v1/listen`: a recording in Deepgram's protocol."""

from __future__ import annotations

from contextlib import AsyncExitStack

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from moulin.decoding.options import DecodingOptions
from moulin.errors import AudioError, MoulinError
from moulin.gateway.api_error import api_error
from moulin.gateway.deepgram.body import received_body
from moulin.gateway.deepgram.errors import refusal
from moulin.gateway.deepgram.results import metadata, recorded_results
from moulin.gateway.deepgram.wish import Wish
from moulin.gateway.named_model import named_or_default
from moulin.gateway.services import Services
from moulin.gateway.transcriptions import audio_refusal
from moulin.gateway.while_connected import CLIENT_GONE, while_connected
from moulin.gateway.whole_recording import heard_recording


async def listen_recorded(services: Services, request: Request) -> Response:
    """The response, or the refusal in Deepgram's form."""
    try:
        return await _answer(services, request)
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    except AudioError as error:
        return refusal(audio_refusal(error), request.state.request_id)
    except MoulinError as error:
        return refusal(api_error(error), request.state.request_id)


async def _answer(services: Services, request: Request) -> Response:
    about = request.state
    wish = Wish.of(request.query_params.multi_items(), live=False)
    with services.limits.request(about.caller):
        model = await named_or_default(services.catalog.for_recordings, wish.model)
        headers = services.ignored.note(wish.ignored_with(model))
        options = wish.decoding_options(hotwords=model.uses_hotwords)
        DecodingOptions().updated(options)
        async with AsyncExitStack() as received:
            with services.metrics.uploads.track_inprogress():
                body = await received.enter_async_context(received_body(request, services.settings, wish.raw))
            hearing = heard_recording(
                services,
                body.recording,
                wish.selection,
                model,
                options,
                caller=about.caller,
                request_id=about.request_id,
            )
            transcript = await while_connected(request.receive, hearing)
    about.log = {"model": model.name, "audio_sec": transcript.duration_sec}
    results = recorded_results(transcript, wish)
    found = metadata(
        about.request_id,
        model.name,
        duration_sec=transcript.duration_sec,
        channels=len(results["channels"]),
        sha256=body.sha256,
    )
    warnings = {"warnings": list(transcript.warnings)} if transcript.warnings else {}
    return JSONResponse(
        {"metadata": found | warnings, "results": results}, headers=headers | {"dg-request-id": about.request_id}
    )
