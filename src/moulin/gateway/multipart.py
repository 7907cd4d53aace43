"""Multipart forms as RFC 2046 and RFC 7578 allow them, and as clients write them.

Beside what Starlette's parser takes: a preamble before the first boundary, and names of files in RFC 2231's form alone
(`filename*=UTF-8''na%C3%AFve.wav`), which RFC 7578 forbids and some libraries send.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from email.message import Message
from email.utils import collapse_rfc2231_value

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from moulin.quoting import quoted

FORM = b"multipart/form-data"


def content_kind(header: str) -> bytes:
    """The media type in a Content-Type header, in lower case."""
    kind, _ = parse_options_header(header)
    return kind


async def multipart_form(request: Request, *, max_files: int, max_fields: int) -> FormData:
    """The form in the body of `request`. Raises MultiPartException, of which FormTooLarge says what is too much."""
    _, parameters = parse_options_header(request.headers.get("content-type"))
    async with aclosing(_from_first_boundary(request.stream(), parameters.get(b"boundary", b""))) as body:
        return await _Parser(request.headers, body, max_files=max_files, max_fields=max_fields).parse()


async def _from_first_boundary(body: AsyncIterator[bytes], boundary: bytes) -> AsyncGenerator[bytes]:
    """`body` without what comes before its first boundary, which begins a line."""
    wanted = b"\r\n--" + boundary
    seen = b"\r\n"  # the body's beginning is that of a line
    async for block in body:
        seen += block
        if (at := seen.find(wanted)) >= 0:
            yield seen[at + 2 :]
            break
        seen = seen[-len(wanted) :]
    else:
        raise MultiPartException("no line of it begins with the boundary that Content-Type names")
    async for block in body:
        yield block


class FormTooLarge(MultiPartException):
    """A form has more files, fields or text than may be; the message is a sentence."""


class _Parser(MultiPartParser):
    _has_ended = False

    async def parse(self) -> FormData:
        form = await super().parse()
        if not self._has_ended:  # a field or a part of the recording may be missing
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("it ends before its last boundary")
        return form

    def on_headers_finished(self) -> None:
        self._current_part.content_disposition = _with_plain_file_name(self._current_part.content_disposition or b"")
        try:
            super().on_headers_finished()
        except MultiPartException:
            if self._current_files > self.max_files:
                raise FormTooLarge("Expected one recording in a request, got more files") from None
            if self._current_fields > self.max_fields:
                raise FormTooLarge(f"Expected at most {self.max_fields:,} fields, got more") from None
            raise

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._current_part
        if part.file is None and len(part.data) + end - start > self.max_part_size:
            raise FormTooLarge(f"Expected {quoted(part.field_name)} to have at most {self.max_part_size:,} bytes")
        super().on_part_data(data, start, end)

    def on_end(self) -> None:
        self._has_ended = True


def _with_plain_file_name(disposition: bytes) -> bytes:
    """The header with `filename`, where it has only `filename*`."""
    _, options = parse_options_header(disposition)
    if b"filename" in options or b"*" not in disposition:
        return disposition
    message = Message()
    message["content-disposition"] = disposition.decode("latin-1")
    found = message.get_param("filename", header="content-disposition")
    if found is None:
        return disposition
    name = collapse_rfc2231_value(found)
    plain = "".join(char if char.isprintable() and char not in '"\\' else "_" for char in name)
    return disposition + b'; filename="' + plain.encode("utf-8", "replace") + b'"'
