"""Requests and replies without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor

from moulin.client import protocol
from moulin.errors import (
    AudioError,
    ClientError,
    OptionsError,
    RequestRefused,
    ServerBusy,
    ServerTimeout,
    ServerUnavailable,
)
from moulin.transcript import Transcript, Word
from moulin.triton_repo import contract


class Reply:
    """An `InferResult` with these outputs."""

    def __init__(self, **outputs: Any) -> None:
        self._outputs = outputs

    def as_numpy(self, name: str) -> Any:
        return self._outputs.get(name)

    def get_response(self) -> Any:
        return SimpleNamespace(id="own")


def _sent(inputs: list[Any]) -> dict[str, tuple[list[int], str, Any]]:
    dtypes = {"FP32": "<f4", "INT32": "<i4"}
    sent = {}
    for item in inputs:
        raw, datatype = item._get_content(), item.datatype()
        flat = deserialize_bytes_tensor(raw) if datatype == "BYTES" else np.frombuffer(raw, dtypes[datatype])
        sent[item.name()] = (item.shape(), datatype, flat.reshape(item.shape()).tolist())
    return sent


def test_rows_are_padded_to_the_longest() -> None:
    waveforms = [np.array([0.5, 0.25], np.float32), np.array([1.0], np.float32)]
    assert _sent(protocol.request_tensors(waveforms, None)) == {
        "WAV": ([2, 2], "FP32", [[0.5, 0.25], [1.0, 0.0]]),
        "WAV_LENS": ([2, 1], "INT32", [[2], [1]]),
    }


def test_empty_audio_is_one_sample_of_length_zero() -> None:
    sent = _sent(protocol.request_tensors([np.zeros(0, np.float32)], {}))
    assert sent == {"WAV": ([1, 1], "FP32", [[0.0]]), "WAV_LENS": ([1, 1], "INT32", [[0]])}


def test_options_go_with_every_row() -> None:
    options = {"method": "greedy", "beam": 3}
    shape, datatype, rows = _sent(protocol.request_tensors([np.zeros(1, np.float32)] * 2, options))["OPTIONS"]
    assert (shape, datatype) == ([2, 1], "BYTES")
    assert [json.loads(row) for (row,) in rows] == [options, options]


def test_the_names_are_the_contracts() -> None:
    """Spelled out in the client, which does not import the server's side."""
    tensors = _sent(protocol.request_tensors([np.zeros(1, np.float32)], {"beam": 1}))
    assert list(tensors) == [contract.WAV, contract.WAV_LENS, contract.OPTIONS]
    assert [output.name() for output in protocol.requested_outputs()] == [contract.RESULT]
    assert contract.MODEL_NAME == protocol.DEFAULT_MODEL


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([0.5], np.float32), [0.5]),
        (np.array([0.5], np.float64), [0.5]),
        (np.array([-32768, 16384], np.int16), [-1.0, 0.5]),
        ([0.25, -0.25], [0.25, -0.25]),
        (np.zeros(0, np.int16), []),
    ],
)
def test_samples_of_several_types(samples: Any, expected: list[float]) -> None:
    waveform = protocol.waveform(samples)
    assert waveform.dtype == np.float32
    assert waveform.tolist() == expected


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 3), np.float32), r"shape \[2, 3\]"),
        (np.array(3.0), r"shape \[\]"),
        (np.array([1, 2], np.int32), "int32"),
        (np.array([1000.0]), "peak of 1000"),
        (np.array([np.nan]), "nan at sample 0"),
    ],
)
def test_arrays_that_are_no_waveform(samples: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        protocol.waveform(samples)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        protocol.waveform(tmp_path / "absent.wav")


def test_replies() -> None:
    expected = [Transcript("ÉTÉ", (Word("ÉTÉ", 0.04, 0.08, 0.5),), 1.0), Transcript("", (), 0.0)]
    rows = [[json.dumps({**transcript.to_dict(), "new_key": 1}).encode()] for transcript in expected]
    assert protocol.transcripts(Reply(RESULT=np.array(rows, np.object_))) == expected


def test_a_reply_without_result() -> None:
    with pytest.raises(ClientError, match="no RESULT") as caught:
        protocol.transcripts(Reply(TRANSCRIPTS=np.array([[b"HI"]], np.object_)))
    assert "not one that moulin wrote" in str(caught.value.hint)


# What grpcio 1.7x says of the gateway's port.
HTTP_1 = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9000: Failed parsing HTTP/2 (Expected "
    "SETTINGS frame as the first frame, got frame type 80) (Trying to connect an http1.x server (HTTP status 404))"
)
CONNECT = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:8001: "
    "Failed to connect to remote host: Connection refused"
)

# What gRPC says of a connection that ends while a request is on it, by the moment: in a write, a read, or between.
LOST = {
    message: f"the connection was lost ({message})"
    for message in (
        "Stream removed (sendmsg: Broken pipe (32))",
        "Stream removed",
        "recvmsg:Connection timed out",
        "Broken pipe",
        "Transport closed",
        "GOAWAY received",
        "Connection aborted",
        "Endpoint closing",
        "keepalive: Ping timeout. Closing transport.",
    )
} | {"recvmsg:Connection reset by peer": "recvmsg:Connection reset by peer"}


@pytest.mark.parametrize(
    ("status", "message", "kind", "expected", "hint"),
    [
        ("UNAVAILABLE", CONNECT, ServerUnavailable, "No Triton server answers at h:1: Connection refused", "serve"),
        ("UNAVAILABLE", "Socket closed", ServerUnavailable, "No Triton server answers at h:1: Socket closed", "serve"),
        ("UNAVAILABLE", "Socket closed", ServerUnavailable, "No Triton server answers at h:1: Socket closed", "8001"),
        *(
            ("UNAVAILABLE", message, ServerUnavailable, f"No Triton server answers at h:1: {found}", "moulin serve")
            for message, found in LOST.items()
        ),
        ("UNAVAILABLE", HTTP_1, ServerUnavailable, "What answers at h:1 is no gRPC server, but an HTTP one", "8001"),
        (
            "UNAVAILABLE",
            "Request for unknown model: 'm' version 1 is not at ready state",
            ServerUnavailable,
            "The server at h:1 is not ready: Request for unknown model: 'm' version 1 is not at ready state",
            None,
        ),
        ("UNAVAILABLE", "Exceeds maximum queue size", ServerBusy, "The server at h:1 is busy", "later"),
        ("UNAVAILABLE", "All 9 streams are in use", ServerBusy, "All 9 streams are in use", "--max-streams"),
        ("UNAVAILABLE", "All 9 streams are in use (hint: wait)", ServerBusy, "All 9 streams are in use", "wait"),
        (
            "INVALID_ARGUMENT",
            "inference request to model 'm' must specify a non-zero or non-empty correlation ID",
            RequestRefused,
            "The model 'm' at h:1 is for streaming: it takes no whole recordings",
            "moulin stream",
        ),
        ("NOT_FOUND", "Request for unknown model: 'm' is not found", RequestRefused, "has no model 'm'", "--name"),
        (
            "DEADLINE_EXCEEDED",
            "Deadline Exceeded",
            ServerTimeout,
            "The server at h:1 did not answer in time",
            "timeout",
        ),
        ("INVALID_ARGUMENT", "Too long (hint: cut it)", RequestRefused, "Too long", "cut it"),
        ("INVALID_ARGUMENT", "Too long", RequestRefused, "Too long", None),
        ("INVALID_ARGUMENT", "unexpected inference output 'RESULT' for model 'm'", ClientError, "no RESULT", "moulin"),
        ("INTERNAL", None, ClientError, "no message", None),
        (
            "INTERNAL",
            "Stub process 'm_0' is not healthy.",
            ServerUnavailable,
            "The model 'm' at h:1 has failed",
            "restart",
        ),
        (
            "INTERNAL",
            "Failed to increase the shared memory pool size for key 'k' to 10 bytes",
            ServerBusy,
            "shared memory",
            "shm",
        ),
        ("INTERNAL", "expected a single response, got 0", ServerBusy, "shared memory", "--shm-size"),
    ],
)
def test_errors(status: str, message: str | None, kind: type[ClientError], expected: str, hint: str | None) -> None:
    error = protocol.client_error(InferenceServerException(message, f"StatusCode.{status}"), "h:1", "m")
    assert type(error) is kind
    assert expected in error.message
    assert (error.hint is None) == (hint is None)
    assert hint is None or hint in str(error.hint)


@pytest.mark.parametrize("url", ["http://localhost:8001", "grpc://localhost:8001"])
def test_an_address_with_a_scheme(url: str) -> None:
    with pytest.raises(OptionsError, match="HOST:PORT, got"):
        protocol.check_url(url)


def test_the_client_needs_no_engine() -> None:
    code = "import sys, moulin.client; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    unwanted = {"torch", "onnx", "onnxruntime", "soundfile", "av", "kaldi_native_fbank", "moulin.engine"}
    assert not unwanted & set(modules)
