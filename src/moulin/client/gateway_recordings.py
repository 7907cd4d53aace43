"""Recordings to a gateway: `POST /v1/audio/transcriptions`, by the standard library."""

from __future__ import annotations

import http.client
import json
import math
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from moulin.client.gateway_address import GatewayAddress
from moulin.errors import AudioError, ClientError, OptionsError, ServerBusy, ServerUnavailable
from moulin.quoting import cut
from moulin.transcript import PlacedWord, Transcript, Word

DEFAULT_MODEL = "whisper-1"
"""A name that every gateway takes for its default model."""

_CONNECT_SEC = 10.0
_READ_BYTES = 1 << 18
_MOST_ANSWER_BYTES = 1 << 28
_TRIES, _LONGEST_WAIT_SEC = 4, 30.0
_OPTIONS = ("method", "beam", "blank_penalty", "hotwords_score")
"""Options of the search that REST has fields for, beside hotwords."""


def rest_fields(changes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Options of the search as fields. Raises OptionsError for those that REST cannot say."""
    fields = []
    for name, value in changes.items():
        if name == "hotwords":
            fields += [("keywords[]", _keyword(word)) for word in value]
        elif name in _OPTIONS:
            fields.append((name, str(value)))
        else:
            raise OptionsError(
                f"Expected options that a gateway's recordings have, got {name}",
                hint="give Triton's gRPC address instead of the gateway's, or --model",
            )
    return fields


def _keyword(word: Any) -> str:
    if not isinstance(word, str):
        raise OptionsError(
            f"Expected hotwords without scores of their own for a gateway, got one for {cut(str(word.get('phrase')))}",
            hint="--hotwords-score is for all of them; Triton's gRPC address takes each",
        )
    return word


class GatewayClient:
    """Sends recordings; may be used by several threads."""

    def __init__(self, address: GatewayAddress, *, model: str) -> None:
        self._address, self._model = address, model
        self._tls = ssl.create_default_context() if address.is_secure else None

    def transcribe(self, file: BinaryIO, size: int, name: str, fields: Sequence[tuple[str, str]]) -> Transcript:
        """The transcript of `size` bytes from the beginning of `file`, with the times of words.

        A gateway that is busy is asked again when it says so, a few times. Raises ClientError, AudioError.
        """
        for tried in range(1, _TRIES + 1):
            file.seek(0)
            try:
                return self._asked(file, size, name, fields)
            except _Later as later:
                if tried == _TRIES:
                    raise later.error from None
                time.sleep(min(later.wait_sec, _LONGEST_WAIT_SEC))
        raise AssertionError("unreachable")

    def _asked(self, file: BinaryIO, size: int, name: str, fields: Sequence[tuple[str, str]]) -> Transcript:
        boundary = secrets.token_hex(16)
        wanted = [
            ("model", self._model),
            ("response_format", "verbose_json"),
            ("timestamp_granularities[]", "word"),
            ("include[]", "logprobs"),
            *fields,
        ]
        head = b"".join(_field(boundary, field, value) for field, value in wanted) + _file_head(boundary, name)
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            **self._address.headers,
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + size + len(tail)),
        }
        connection = self._connected()
        try:
            sent = _sent(connection, self._address.path("audio/transcriptions"), headers, _body(head, file, size, tail))
            response = self._response(connection, sent)
            body = response.read(_MOST_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise self._address.unreachable(error) from None
        finally:
            connection.close()
        if response.status != 200:
            refusal = self._address.refusal(response.status, body, dict(response.headers.items()))
            wait = response.headers.get("retry-after", "")
            if isinstance(refusal, ServerBusy | ServerUnavailable) and wait.isdecimal():
                raise _Later(refusal, float(wait))
            raise refusal
        ignored = response.headers.get("x-moulin-ignored")
        return _transcript(body, [f"the gateway made nothing of {cut(ignored)}"] if ignored else [])

    def _connected(self) -> http.client.HTTPConnection:
        address = self._address
        connection = (
            http.client.HTTPConnection(address.host, address.port, timeout=_CONNECT_SEC)
            if self._tls is None
            else http.client.HTTPSConnection(address.host, address.port, timeout=_CONNECT_SEC, context=self._tls)
        )
        try:
            connection.connect()
        except OSError as error:
            raise address.unreachable(error) from None
        connection.sock.settimeout(None)  # a long recording takes as long as it takes
        return connection

    def _response(self, connection: http.client.HTTPConnection, sent: OSError | None) -> http.client.HTTPResponse:
        """The response, also where it came before all was sent: to what is refused."""
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise sent or error from None


class _Later(Exception):
    """The gateway may answer later."""

    def __init__(self, error: ClientError, wait_sec: float) -> None:
        super().__init__(str(error))
        self.error, self.wait_sec = error, wait_sec


def _sent(
    connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str], body: Iterator[bytes]
) -> OSError | None:
    """Send a request; the error where the other side would not take all of it."""
    connection.putrequest("POST", path)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        for part in body:
            connection.send(part)
    except (BrokenPipeError, ConnectionResetError) as error:
        return error
    return None


def _body(head: bytes, file: BinaryIO, size: int, tail: bytes) -> Iterator[bytes]:
    yield head
    left = size
    while left:
        part = file.read(min(left, _READ_BYTES))
        if not part:
            raise AudioError("The file has become shorter while it was sent")
        left -= len(part)
        yield part
    yield tail


def _field(boundary: str, name: str, value: str) -> bytes:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def _file_head(boundary: str, name: str) -> bytes:
    quoted = name.replace("\\", "_").replace('"', "_")
    plain = "".join(char if char.isprintable() else "_" for char in quoted).encode("utf-8", "replace")
    disposition = b'Content-Disposition: form-data; name="file"; filename="' + plain + b'"'
    return f"--{boundary}\r\n".encode() + disposition + b"\r\nContent-Type: application/octet-stream\r\n\r\n"


def _transcript(body: bytes, warnings: Sequence[str]) -> Transcript:
    """The transcript in a `verbose_json`. Raises ClientError."""
    try:
        found = json.loads(body)
        confidences = [round(min(math.exp(one["logprob"]), 1.0), 4) for one in found.get("logprobs", ())]
        words = found.get("words", ())
        if len(confidences) != len(words):
            confidences = [1.0] * len(words)
        return Transcript(
            found["text"],
            tuple(map(_word, words, confidences)),
            float(found["duration"]),
            (*found.get("warnings", ()), *warnings),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ClientError(f"Expected a transcript of the gateway's, got another answer: {error!r}") from None


def _word(word: Mapping[str, Any], confidence: float) -> Word:
    plain = (word["word"], word["start"], word["end"], confidence)
    if "channel" in word or "track" in word:
        return PlacedWord(*plain, word.get("channel"), word.get("track"))
    return Word(*plain)
