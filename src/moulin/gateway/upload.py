"""Reception of a multipart body to disk, within limits of size and time."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Message

from moulin.decoding.hotwords import MOST_HOTWORDS
from moulin.gateway.api_error import ApiError
from moulin.gateway.multipart import FORM, FormTooLarge, content_kind, multipart_form
from moulin.quoting import cut

logger = logging.getLogger(__name__)

_FIELDS_BYTES = 1 << 20
"""The limit on the size of all fields beside the file."""

_MAX_FIELDS = 64 + MOST_HOTWORDS

_NOT_KEPT = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EFBIG,
        errno.EIO,
        errno.ESTALE,
    )
)
"""Errors of a folder for temporary files: it is full, read-only, forbidden, removed or broken. Python says ENOENT of
the first four where it has not written there before."""

_SLOW_SEC = 15.0
"""The time in which nothing need have come."""


@dataclass(frozen=True, slots=True)
class Recording:
    """An uploaded file. It has no name on disk, so it disappears with its last reader, even if that is killed."""

    name: str
    """The client's name of the file."""
    descriptor: int
    """The open file, while the form is open."""


@asynccontextmanager
async def received_form(
    request: Request, *, max_bytes: int, max_sec: float, min_bytes_per_sec: float
) -> AsyncIterator[FormData]:
    """The multipart form of `request`, whose files are closed, and thereby removed, on leaving.

    Raises ApiError 413 as soon as more than `max_bytes` are announced or received, 408 after `max_sec` or where it
    comes at less than `min_bytes_per_sec` on average, 400 or 415 for an invalid body, and 507 where
    the disk does not take it.
    """
    kind = request.headers.get("content-type", "")
    if content_kind(kind) != FORM:
        raise ApiError(415, f"Expected a multipart/form-data body, got {kind or 'no content type'}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "Expected a body that is not compressed", hint="send FLAC or Opus to send less")
    limit = max_bytes + _FIELDS_BYTES
    if int(request.headers.get("content-length", "0")) > limit:
        raise _too_large(max_bytes)
    received, started = 0, asyncio.get_running_loop().time()

    async def counted() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise MultiPartException("too large")  # makes the parser close the file
        deadline.reschedule(started + min(max_sec, _SLOW_SEC + received / min_bytes_per_sec))
        return message

    parsing = Request(request.scope, counted)
    try:
        async with asyncio.timeout(min(max_sec, _SLOW_SEC)) as deadline:
            with on_disk():
                form = await multipart_form(parsing, max_files=1, max_fields=_MAX_FIELDS)
    except MultiPartException as error:
        if received > limit:
            raise _too_large(max_bytes) from None
        is_damaged = not isinstance(error, FormTooLarge)
        raise ApiError(400, f"The form is damaged: {error.message}" if is_damaged else error.message) from None
    except TimeoutError:
        message = f"Expected the upload to end within {max_sec:g} s, and {min_bytes_per_sec:g} bytes of it a second"
        raise ApiError(408, f"{message}, got {received} bytes so far") from None
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
    with on_disk():
        file.file.rollover()  # type: ignore[attr-defined]  # small files are still in memory
    return Recording(cut(file.filename or "the file"), file.file.fileno())


@contextmanager
def on_disk() -> Iterator[None]:
    """Where the disk does not take what comes, that is not the client's fault. Raises ApiError 507."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_KEPT:
            raise
        logger.error("An upload cannot be kept: %s (hint: TMPDIR names the folder)", error.strerror)
        message = "The server has no room for the recording"
        raise ApiError(507, message, code="insufficient_storage", hint="try again later") from None


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"Expected a file of at most {max_bytes} bytes, got more",
        code="file_too_large",
        param="file",
        hint="FLAC and Opus take less than WAV",
    )
