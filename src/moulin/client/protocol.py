"""Requests and replies of the Triton contract, without a connection, for both clients.

Needs numpy and tritonclient only.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from moulin.audio.waveform import check_waveform, in_16_bits
from moulin.errors import (
    ClientError,
    OptionsError,
    RequestRefused,
    ServerBusy,
    ServerTimeout,
    ServerUnavailable,
    StreamsFull,
)
from moulin.live_transcript import StreamUpdate
from moulin.quoting import quoted
from moulin.transcript import Transcript

DEFAULT_URL = "localhost:8001"
DEFAULT_MODEL = "transducer"

Audio = NDArray[np.float32] | NDArray[np.int16] | str | Path
"""Samples (16 kHz, mono, float in [-1, 1] or int16), or a file, which needs the audio packages."""

CHANNEL_ARGUMENTS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A restarted server is found within a second; gRPC's default backoff grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
]

_NOBODY = re.compile(r"failed to connect|resolving|resolution|connection reset", re.IGNORECASE)
_CLOSED = re.compile(r"socket closed", re.IGNORECASE)
_LOST = re.compile(  # gRPC's own words for a connection that was up and is no more
    r"stream re(?:mov|fus)ed|transport|endpoint|connection|broken pipe|goaway|(?:recv|send)msg|"
    r"(?:ping|settings) timeout|handshak|rst_stream|fd shutdown",
    re.IGNORECASE,
)
_HTTP_1 = re.compile(r"http1\.x|failed parsing HTTP/2", re.IGNORECASE)
_GRPC_PORT = (
    "name its gRPC port, which is 8001 by default; HTTP has another, and a gateway is named as http://HOST:PORT"
)
_HINTED = re.compile(r"(?P<message>.*) \(hint: (?P<hint>.*)\)", re.DOTALL)

# Phrases of tritonserver's own messages, where its status does not tell errors apart.
_QUEUE_FULL = "queue size"
_DEAD_STUB = "is not healthy"  # the process of a python model has died
_NO_SHARED_MEMORY = (  # for a request, and for the reply to one
    "Failed to increase the shared memory pool size",
    "expected a single response, got 0",
)
_UNKNOWN_OUTPUT = "unexpected inference output"
_UNKNOWN_INPUT = "unexpected inference input"
_NO_SEQUENCE_ID = "correlation ID"  # a request without one to a model with sequences


def check_url(url: str) -> str:
    """`url`, checked. Raises OptionsError for a web address, which gRPC would look up as a host name."""
    if "://" in url:
        raise OptionsError(
            f"Expected the server's gRPC address as HOST:PORT, got {url!r}",
            hint=f"for example {DEFAULT_URL}; HTTP has another port",
        )
    return url


def waveform(audio: Audio) -> NDArray[np.float32]:
    """`audio` as float32 samples. Raises AudioError."""
    if isinstance(audio, str | Path):
        from moulin.audio.decode import read_audio

        return read_audio(audio)
    return check_waveform(audio)


def request_tensors(
    waveforms: Sequence[NDArray[np.float32]],
    options: Mapping[str, Any] | None,
    *,
    int16: bool = False,
    chunk_index: int | None = None,
) -> list[InferInput]:
    """WAV (or WAV_INT16), WAV_LENS and, where there are any, OPTIONS for one request with a row for each waveform.

    `chunk_index` is CHUNK_INDEX of a stream's request.
    """
    # At least one sample: Triton refuses a tensor without elements.
    wav = np.zeros((len(waveforms), max((len(w) for w in waveforms), default=0) or 1), dtype=np.float32)
    for row, waveform in enumerate(waveforms):
        wav[row, : len(waveform)] = waveform
    samples: dict[str, NDArray[Any]] = {"WAV_INT16": in_16_bits(wav)} if int16 else {"WAV": wav}
    tensors = {**samples, "WAV_LENS": np.array([[len(waveform)] for waveform in waveforms], dtype=np.int32)}
    if options:
        tensors["OPTIONS"] = np.full((len(waveforms), 1), json.dumps(dict(options)).encode(), dtype=np.object_)
    if chunk_index is not None:
        tensors["CHUNK_INDEX"] = np.array([[chunk_index]], dtype=np.uint64)
    datatypes = {"CHUNK_INDEX": "UINT64", "WAV": "FP32", "WAV_INT16": "INT16", "WAV_LENS": "INT32", "OPTIONS": "BYTES"}
    inputs = []
    for name, tensor in tensors.items():
        item = InferInput(name, list(tensor.shape), datatypes[name])
        item.set_data_from_numpy(tensor)
        inputs.append(item)
    return inputs


def requested_outputs() -> list[InferRequestedOutput]:
    return [InferRequestedOutput("RESULT")]


class RequestIds:
    """Ids for the requests of a client, all different. A reply carries the id of its request."""

    def __init__(self) -> None:
        self._client, self._numbers = secrets.token_hex(4), count()

    def next(self, request_id: str = "") -> str:
        """`request_id`, which several requests may share, with something that none has in common with another."""
        return f"{request_id}{':' if request_id else ''}{self._client}-{next(self._numbers)}"


def expect_own(result: Any, request_id: str) -> None:
    """Raises ServerUnavailable where the `InferResult` is the reply to another request than that with this id."""
    _expect_id(result.get_response().id, request_id)


def _expect_id(got: str, request_id: str) -> None:
    if got != request_id:
        raise ServerUnavailable(
            f"The server mixed up replies: expected that to {quoted(request_id)}, got that to {quoted(got)}",
            hint="send the request again",
        )


def transcripts(result: Any) -> list[Transcript]:
    """The transcript of each row of an `InferResult`."""
    return [Transcript.from_dict(fields) for fields in _results(result)]


def inputs_of(metadata: Any) -> frozenset[str]:
    """The names of the inputs in a `ModelMetadataResponse`; streams of older servers lack CHUNK_INDEX and WAV_INT16."""
    return frozenset(tensor.name for tensor in metadata.inputs)


def stream_update(result: Any) -> StreamUpdate:
    """The update in the `InferResult` of a streaming model. Raises ClientError for an offline model's result."""
    (fields,) = _results(result)
    if "segments" not in fields:
        raise ClientError(
            "The model is offline: it takes whole recordings, not a stream",
            hint="serve a streaming model, name it (--name), or use 'moulin transcribe'",
        )
    return StreamUpdate.from_dict(fields)


def has_other_inputs(error: InferenceServerException) -> bool:
    """Whether the model does not have an input that it had before: it has been replaced."""
    return _UNKNOWN_INPUT in (error.message() or "")


def streaming_name(model: str) -> str:
    """The usual name of the streaming model beside the offline `model` on a server."""
    return f"{model}_streaming"


def client_error(error: InferenceServerException, url: str, model: str) -> ClientError:
    """Triton's exception as a ClientError."""
    status, message = error.status() or "", error.message() or "no message"
    if "UNAVAILABLE" in status:
        return _unavailable(message, url)
    if "NOT_FOUND" in status:
        return RequestRefused(
            f"The server at {url} has no model {quoted(model)}", hint="give the name that it is served under (--name)"
        )
    if "DEADLINE_EXCEEDED" in status:
        return ServerTimeout(
            f"The server at {url} did not answer in time", hint="raise the timeout, or send less at once"
        )
    if _DEAD_STUB in message:
        return ServerUnavailable(
            f"The model {quoted(model)} at {url} has failed: {message}",
            hint="send it again in some seconds, when 'moulin serve' has restarted it; otherwise restart Triton",
        )
    if any(phrase in message for phrase in _NO_SHARED_MEMORY):
        return ServerBusy(
            f"The server at {url} has no shared memory left for the request",
            hint="send less at once, or start its container with more --shm-size",
        )
    if _UNKNOWN_OUTPUT in message:
        return _foreign_model()
    if _NO_SEQUENCE_ID in message:
        return RequestRefused(
            f"The model {quoted(model)} at {url} is for streaming: it takes no whole recordings",
            hint="use 'moulin stream' (Client.stream), or name an offline model (--name)",
        )
    return _said(RequestRefused if "INVALID_ARGUMENT" in status else ClientError, message)


def _said(kind: type[ClientError], message: str, hint: str | None = None) -> ClientError:
    """The server's message as an error, with the server's hint if it has one."""
    hinted = _HINTED.fullmatch(message)
    return kind(hinted["message"], hint=hinted["hint"]) if hinted else kind(message, hint=hint)


def _unavailable(message: str, url: str) -> ClientError:
    if StreamsFull.IN_USE in message or StreamsFull.BUSY in message:
        return _said(ServerBusy, message, "try later, or raise --max-streams of 'moulin serve'")
    if _QUEUE_FULL in message:
        return ServerBusy(
            f"The server at {url} is busy: its queue of requests is full", hint="send less at once, or try later"
        )
    if _HTTP_1.search(message):
        return ServerUnavailable(f"What answers at {url} is no gRPC server, but an HTTP one", hint=_GRPC_PORT)
    if _CLOSED.search(message):  # by a server that ends, and by Triton's HTTP server, which does not know gRPC
        hint = f"start one with 'moulin serve', or, if one runs: {_GRPC_PORT}"
        return ServerUnavailable(f"No Triton server answers at {url}: Socket closed", hint=hint)
    if _NOBODY.search(message):
        return ServerUnavailable(
            f"No Triton server answers at {url}: {message.rpartition(': ')[2].rstrip(']')}",
            hint="start one with 'moulin serve', or name its gRPC address as HOST:PORT",
        )
    if _LOST.search(message):
        return ServerUnavailable(
            f"No Triton server answers at {url}: the connection was lost ({message})",
            hint="try again; if it stays so, look at the server's log, or start one with 'moulin serve'",
        )
    return ServerUnavailable(f"The server at {url} is not ready: {message}")


def _results(result: Any) -> list[dict[str, Any]]:
    """The RESULT of each row, parsed. Raises ServerUnavailable where the model wrote it for another request; older ones
    do not say for which."""
    rows = result.as_numpy("RESULT")
    if rows is None:
        raise _foreign_model()
    found = [json.loads(row) for row in rows.ravel()]
    own_id = result.get_response().id
    for fields in found:
        _expect_id(fields.get("request_id", own_id), own_id)
    return found


def _foreign_model() -> ClientError:
    return ClientError("The server sent no RESULT", hint="its model is not one that moulin wrote")
