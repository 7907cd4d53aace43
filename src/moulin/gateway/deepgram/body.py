"""A request's body as a file, within limits of size and time."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile

from starlette.requests import Request

from moulin.audio.containers import SNIFFED_BYTES, container_of
from moulin.audio.pcm import RawFormat
from moulin.audio.wav_header import wav_header
from moulin.gateway.api_error import ApiError
from moulin.gateway.settings import GatewaySettings
from moulin.gateway.upload import Recording, on_disk

_SLOW_SEC = 15.0
"""The time in which nothing need have come."""


@dataclass(frozen=True, slots=True)
class Body:
    """A recording, and the digest of what the client has sent."""

    recording: Recording
    sha256: str


@asynccontextmanager
async def received_body(request: Request, settings: GatewaySettings, raw: RawFormat | None) -> AsyncIterator[Body]:
    """The body, in a file without a name that is gone on leaving. `raw` is the form of samples without a header.

    Raises ApiError: 400 for no audio, 413 as soon as there is too much, 408 where it comes too slowly, 415 for JSON and
    compressed bodies, 507 where the disk does not take it.
    """
    _expect_audio(request, settings)
    with ExitStack() as opened:
        with on_disk():
            file = opened.enter_context(TemporaryFile())
        digest, count, header = hashlib.sha256(), 0, b""
        head = b""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(min(settings.max_upload_sec, _SLOW_SEC)) as deadline:
                async for part in request.stream():
                    if raw is not None and len(head) < SNIFFED_BYTES:
                        head += part[: SNIFFED_BYTES - len(head)]
                    if raw is not None and not count and part:
                        header = wav_header(raw, 0)
                        file.write(header)  # overwritten, or left out
                    count += len(part)
                    if count > settings.max_upload_bytes:
                        raise _too_large(settings)
                    digest.update(part)
                    with on_disk():
                        file.write(part)
                    allowed = _SLOW_SEC + count / settings.min_upload_bytes_per_sec
                    deadline.reschedule(started + min(settings.max_upload_sec, allowed))
        except TimeoutError:
            raise ApiError(
                408,
                f"Expected the upload to end within {settings.max_upload_sec:g} s, and "
                f"{settings.min_upload_bytes_per_sec:g} bytes of it a second, got {count} bytes so far",
            ) from None
        if not count:
            raise ApiError(400, "Expected audio in the body, got none", code="invalid_audio")
        with on_disk():
            file.flush()
            if raw is not None:
                _finish(file.fileno(), raw, header, head, count)
        yield Body(Recording("the audio", file.fileno()), digest.hexdigest())


def _finish(descriptor: int, raw: RawFormat, header: bytes, head: bytes, count: int) -> None:
    """Complete the header; a container, which needs none, is moved to the beginning of the file."""
    if container_of(head) is None:
        os.pwrite(descriptor, wav_header(raw, count), 0)
        return
    at, step = 0, 1 << 20
    while part := os.pread(descriptor, step, at + len(header)):
        os.pwrite(descriptor, part, at)
        at += len(part)
    os.ftruncate(descriptor, at)


def _expect_audio(request: Request, settings: GatewaySettings) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        raise ApiError(
            415,
            "Expected the recording itself in the body, got JSON: this server fetches nothing from elsewhere",
            code="unsupported",
            hint="download what the url names, and send its bytes",
        )
    if kind == "multipart/form-data":
        raise ApiError(
            415,
            "Expected the bytes of the recording as the body, got a form",
            hint="curl sends them with --data-binary @speech.wav; forms go to /v1/audio/transcriptions",
        )
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "Expected a body that is not compressed", hint="send FLAC or Opus to send less")
    if int(request.headers.get("content-length", "0")) > settings.max_upload_bytes:
        raise _too_large(settings)


def _too_large(settings: GatewaySettings) -> ApiError:
    return ApiError(
        413,
        f"Expected a recording of at most {settings.max_upload_bytes} bytes, got more",
        code="file_too_large",
        hint="FLAC and Opus take less than WAV",
    )
