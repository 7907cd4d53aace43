"""Faulty requests to the real tritonserver: each gets a clear error, and the next request is served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from moulin.launch.server import TritonServer
from tests.conftest import MAX_BATCH, TINY_MODEL

from .damaged_requests import Damaged, with_nan
from .sherpa_client import Tensors, infer, inputs, tensors, texts, with_options

pytestmark = pytest.mark.triton

N = 4000
SPEECH = np.random.default_rng(1).normal(0, 0.05, N).astype(np.float32)


@pytest.fixture
def client(server: TritonServer) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(server.grpc_url) as connected:
        yield connected


_damaged = Damaged(SPEECH)
_wav, _lens, _without = _damaged.wav, _damaged.lens, _damaged.without


REFUSED: dict[str, tuple[Tensors, str]] = {
    # What moulin finds; each message has the bad value and what was expected.
    "nan": (_wav(with_nan), r"WAV row 0: .*expected finite samples, got nan at sample 7 of 4000"),
    "infinity": (_wav(lambda wav: np.full_like(wav, -np.inf)), r"WAV row 0: .*expected finite samples, got -inf"),
    "16-bit scale": (_wav(lambda wav: wav * 32768), r"expected floats in \[-1, 1\], got a peak .*divide .* by 32768"),
    "lens above N": (_lens(N + 1), rf"WAV_LENS of row 0 to be 0 to {N}, the samples in WAV, got {N + 1}"),
    "lens negative": (_lens(-1), r"WAV_LENS of row 0 .*got -1 .*hint: WAV_LENS counts samples"),
    "lens absurd": (_lens(2**31 - 1), r"got 2147483647"),
    "too long": (
        {"WAV": np.zeros((1, 121 * 16000), np.float32), "WAV_LENS": np.array([[121 * 16000]], np.int32)},
        r"at most 120 s of audio at once, got 121\.0 s .*hint: cut it at silences",
    ),
    "second row": (
        {"WAV": np.stack([SPEECH, SPEECH * 32768]), "WAV_LENS": np.array([[N], [N]], np.int32)},
        r"WAV row 1: ",
    ),
    "options not JSON": (with_options(tensors([SPEECH]), b"{beam: 4}"), r"options are not JSON: Expecting property"),
    "options not UTF-8": (with_options(tensors([SPEECH]), b"\xff\xfe\x00{"), r"options are not JSON"),
    "options a list": (
        with_options(tensors([SPEECH]), b"[4]"),
        r"Expected a JSON object of options, got list",
    ),
    "options unknown": (
        with_options(tensors([SPEECH]), b'{"beams": 4}'),
        r"no decoding option 'beams' .*options are me",
    ),
    "beam 0": (with_options(tensors([SPEECH]), b'{"beam": 0}'), r"Expected a beam of 1 to \d+, got 0"),
    "method": (with_options(tensors([SPEECH]), b'{"method": "best"}'), r"method of greedy, modified_beam.*got 'best'"),
    # What Triton finds by itself, thanks to config.pbtxt.
    "FP64": (_wav(lambda wav: wav.astype(np.float64)), r"'WAV' data-type is 'FP64', but model '.*' expects 'FP32'"),
    "FP16": (_wav(lambda wav: wav.astype(np.float16)), r"'WAV' data-type is 'FP16', but model '.*' expects 'FP32'"),
    "lens INT64": (
        {**_lens(N), "WAV_LENS": np.array([[N]], np.int64)},
        r"'WAV_LENS' data-type is 'INT64', but model '.*' expects 'INT32'",
    ),
    "rank 1": (_wav(lambda wav: wav[0]), r"batch size does not match|batch-size must be"),
    "rank 3": (_wav(lambda wav: wav[None]), r"unexpected shape for input 'WAV'.*Expected \[-1,-1\], got \[1,1,4000\]"),
    "lens rank 1": ({**_lens(N), "WAV_LENS": np.array([N], np.int32)}, r"Expected \[-1,1\], got \[1\]"),
    "no lens": (_without("WAV_LENS"), r"Expected WAV_LENS, how many samples of each row are audio, got none"),
    "no wav": (_without("WAV"), r"Expected either WAV or WAV_INT16, got neither"),
    "rows differ": (_lens(N, N), r"batch size does not match"),
    "options rows differ": (with_options(tensors([SPEECH]), b"", b""), r"batch size does not match"),
    "no rows": (
        {"WAV": np.zeros((0, N), np.float32), "WAV_LENS": np.zeros((0, 1), np.int32)},
        r"input byte size mismatch|batch-size must be",
    ),
    "too many rows": (
        tensors([SPEECH] * (MAX_BATCH + 1)),
        rf"batch-size must be <= {MAX_BATCH} for 'tiny-conformer'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_over_grpc(client: Any, case: str) -> None:
    request, message = REFUSED[case]
    with pytest.raises(InferenceServerException, match=f"(?s){message}") as caught:
        infer(client, request, model=TINY_MODEL)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "Traceback" not in caught.value.message()
    assert len(texts(infer(client, tensors([SPEECH]), model=TINY_MODEL))) == 1


@pytest.mark.parametrize("case", ["nan", "lens negative", "options unknown", "too many rows"])
def test_refused_over_http(server: TritonServer, case: str) -> None:
    request, message = REFUSED[case]
    with http.InferenceServerClient(server.http_url) as client:
        with pytest.raises(InferenceServerException, match=f"(?s){message}") as caught:
            client.infer(TINY_MODEL, inputs(request, http))
        assert caught.value.status() == "400"
        assert len(texts(client.infer(TINY_MODEL, inputs(tensors([SPEECH]), http)))) == 1


@pytest.mark.parametrize("options", [b"[" * 100_000, b'{"temperature": 1' + b"0" * 400 + b"}"], ids=["deep", "huge"])
def test_options_that_break_the_parser(client: Any, options: bytes) -> None:
    """Whatever their status, they fail alone and show nothing of the server's inside."""
    with pytest.raises(InferenceServerException) as caught:
        infer(client, with_options(tensors([SPEECH]), options), model=TINY_MODEL)
    assert ".py(" not in caught.value.message()
    assert len(texts(infer(client, tensors([SPEECH]), model=TINY_MODEL))) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ({"model": "nobody"}, "NOT_FOUND", "unknown model: 'nobody'"),
        ({"model": TINY_MODEL, "model_version": "7"}, "NOT_FOUND", "version 7 is not found"),
        ({"outputs": [grpc.InferRequestedOutput("WORDS")]}, "INVALID_ARGUMENT", "unexpected inference output 'WORDS'"),
    ],
)
def test_names_that_are_not_there(client: Any, arguments: dict[str, Any], status: str, message: str) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        infer(client, tensors([SPEECH]), **arguments)
    assert caught.value.status() == f"StatusCode.{status}"
