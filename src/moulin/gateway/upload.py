"""Reception of a multipart body to disk, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Message

from moulin.gateway.api_error import ApiError
from moulin.quoting import cut

_FIELDS_BYTES = 1 << 20
"""The limit on the size of all fields beside the file."""

_MAX_FIELDS = 64


@dataclass(frozen=True, slots=True)
class Recording:
    """An uploaded file. It has no name on disk, so it disappears with its last reader, even if that is killed."""

    name: str
    """The client's name of the file."""
    path: str
    """The path for opening it, while the form is open."""


@asynccontextmanager
async def received_form(request: Request, *, max_bytes: int, max_sec: float) -> AsyncIterator[FormData]:
    """The multipart form of `request`, whose files are closed, and thereby removed, on leaving.

    Raises ApiError 413 as soon as more than `max_bytes` are announced or received, 408 after `max_sec`, and 400 or 415
    for an invalid body.
    """
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise ApiError(415, f"Expected a multipart/form-data body, got {kind or 'no content type'}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "Expected a body that is not compressed", hint="send FLAC or Opus to send less")
    limit = max_bytes + _FIELDS_BYTES
    if int(request.headers.get("content-length", "0")) > limit:
        raise _too_large(max_bytes)
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise MultiPartException("too large")  # makes the parser close the file
        return message

    parsing = Request(request.scope, counted)
    try:
        async with asyncio.timeout(max_sec):
            form = await parsing.form(max_files=1, max_fields=_MAX_FIELDS)
    except HTTPException as error:
        raise (
            _too_large(max_bytes) if received > limit else ApiError(400, f"The form is damaged: {error.detail}")
        ) from None
    except TimeoutError:
        raise ApiError(408, f"Expected the upload to end within {max_sec:g} s, got {received} bytes so far") from None
    try:
        yield form
    finally:
        await form.close()


def recording_in(form: FormData) -> Recording:
    """The file in the field `file`. Raises ApiError where it is missing or not a file."""
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ApiError(
            400,
            f"Expected a file in the field 'file', got {'text' if file else 'none'}",
            code="missing_required_parameter",
            param="file",
            hint="curl sends one with -F file=@speech.wav",
        )
    file.file.rollover()  # type: ignore[attr-defined]  # small files are still in memory
    return Recording(cut(file.filename or "the file"), f"/proc/self/fd/{file.file.fileno()}")


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"Expected a file of at most {max_bytes} bytes, got more",
        code="file_too_large",
        param="file",
        hint="FLAC and Opus take less than WAV",
    )
