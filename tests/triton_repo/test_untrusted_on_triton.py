"""Requests to the real tritonserver that want to harm: long text, huge tensors, and streams in every order."""

from __future__ import annotations

import os
import random
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from moulin.client import Client
from moulin.launch.server import TritonServer
from moulin.launch.shared_memory import SHM_DIR
from moulin.launch.stubs import running_stubs
from tests.conftest import TINY_MODEL, TINY_STREAMING_MODEL, Recording

from .sherpa_client import inputs, streaming_text, tensors, with_options

pytestmark = pytest.mark.triton

SPEECH = np.random.default_rng(2).normal(0, 0.05, 16_000).astype(np.float32)
MB = 1 << 20
LONG = "x" * 10_000_000


@pytest.fixture
def client(server: TritonServer) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def refusal(client: Any, model: str, request: Any, **arguments: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs(request), **arguments)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", caught.value
    message: str = caught.value.message()
    assert len(message.encode()) <= 2000
    return message


OPTIONS = [
    f'{{"{LONG}": 1}}',
    f'{{"method": "{LONG}"}}',
    f'{{"{LONG[:60_000]}": 1}}',
    f'{{"method": "{"ü" * 30_000}"}}',
    f'{{"method": {"[" * 30_000}{"]" * 30_000}}}',
    '{"' + '": {"'.join(["a"] * 1000) + '": 1' + "}" * 1000,
    '{"beam": ' + "9" * 1_000_000 + "}",
    '{"beam": ' + "9" * 900 + "}",
    '{"beam": NaN}',
    '{"temperature": 1e999}',
    '{"\\ud800": 1}',
    '{"method": "\\udfff"}',
    '{"beam": 1, "beam": 2}',
    "\0" * 1000,
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options[:20])
def test_options_of_any_kind(client: Any, options: str) -> None:
    """Messages that quoted them came back as RESOURCE_EXHAUSTED."""
    request = with_options(tensors([SPEECH]), options.encode())
    refusal(client, TINY_MODEL, request)
    refusal(client, TINY_STREAMING_MODEL, request, sequence_id=90, sequence_start=True)
    refusal(client, TINY_STREAMING_MODEL, request, sequence_id="x" * 128, sequence_start=True)


@pytest.mark.parametrize("rows", [2, 3])
def test_a_stream_of_several_rows(client: Any, rows: int) -> None:
    request = with_options(tensors([SPEECH] * rows), *[b"{}"] * rows)
    refusal(client, TINY_STREAMING_MODEL, request, sequence_id=91, sequence_start=True)


def shared_mb() -> int:
    """Megabytes of the regions of shared memory of this process's servers."""
    return sum(region.stat().st_blocks * 512 for region in SHM_DIR.glob(f"moulin-*-{os.getpid()}-*")) // MB


def stubs_mb(server: TritonServer) -> int:
    """Megabytes of their own of the processes of its models."""
    assert server.pid is not None
    pages = 0
    for pid in running_stubs(server.pid):
        rss, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
        pages += int(rss) - int(shared)
    return pages * 4096 // MB


@pytest.mark.parametrize("model", [TINY_MODEL, TINY_STREAMING_MODEL])
def test_padding_takes_no_memory_for_good(server: TritonServer, client: Any, model: str) -> None:
    """205 MB with WAV_LENS 0, five times."""
    client.infer(model, inputs(tensors([SPEECH])), sequence_id=92, sequence_start=True, sequence_end=True)
    shared, own = shared_mb(), stubs_mb(server)
    assert shared
    assert own
    for _ in range(5):
        request = {"WAV": np.zeros((1, 51_000_000), np.float32), "WAV_LENS": np.zeros((1, 1), np.int32)}
        if model == TINY_MODEL:  # padding is allowed there
            client.infer(model, inputs(request))
        else:
            message = refusal(client, model, request, sequence_id=93, sequence_start=True, sequence_end=True)
            assert "at most 600 s of audio in one request" in message
    assert shared_mb() < shared + 64
    assert stubs_mb(server) < own + 64


def test_large_requests_and_small_ones_get_their_own_words(
    server: TritonServer, snippets: list[tuple[Any, str]]
) -> None:
    """Memory that is given back is never another request's."""
    wrong = []

    def small(number: int) -> None:
        samples, text = snippets[number % len(snippets)]
        with Client(server.grpc_url, model=TINY_MODEL) as own:
            for _ in range(20):
                heard = own.transcribe(samples).text
                if heard != text:
                    wrong.append((text, heard))

    def large() -> None:
        with grpc.InferenceServerClient(server.grpc_url) as own:
            for _ in range(6):
                wav = np.ones((1, 8_000_000), np.float32)
                own.infer(TINY_MODEL, inputs({"WAV": wav, "WAV_LENS": np.array([[100]], np.int32)}))

    threads = [threading.Thread(target=small, args=(n,)) for n in range(4)]
    threads += [threading.Thread(target=large) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_metrics_have_labels_of_closed_sets(server: TritonServer, client: Any) -> None:
    """After requests with ids, options and models that their clients made up."""
    for number in range(20):
        request = with_options(tensors([SPEECH]), f'{{"option-{number}": 1}}'.encode())
        refusal(client, TINY_MODEL, request, request_id=f"request-{number}")
        refusal(client, TINY_STREAMING_MODEL, request, sequence_id=f"stream-{number}", sequence_start=True)
        with pytest.raises(InferenceServerException):
            client.infer(f"model-{number}", inputs(request))
    models = {model.name for model in client.get_model_repository_index().models}
    with urllib.request.urlopen(server.metrics_url, timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    assert any(family.name.startswith("moulin_") for family in families)
    for family in families:
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label == "model":
                    assert value in models
                elif label == "instance":
                    assert re.fullmatch(rf"({'|'.join(models)})_\d+(_\d+)?", value), value
                else:
                    assert len(value) < 64, (family.name, label, value)
                    assert "-" not in value.removeprefix("GPU-") or label == "gpu_uuid", (family.name, label, value)


# -------------------------------------------------------------------------------------------------- chunks in any order


def in_flight(client: Any, requests: list[dict[str, Any]]) -> dict[int, Any]:
    """The answers to all requests, sent at once as unary calls: text, or an exception."""
    answers: dict[int, Any] = {}
    done = threading.Semaphore(0)

    def keep(number: int) -> Any:
        def callback(result: Any, error: Any) -> None:
            answers[number] = error or streaming_text(result)
            done.release()

        return callback

    for request in requests:
        client.async_infer(TINY_STREAMING_MODEL, callback=keep(request["number"]), **request["arguments"])
    for _ in requests:
        assert done.acquire(timeout=120), f"{len(answers)} of {len(requests)} answers"
    return answers


def numbered(pieces: list[Any], stream: int) -> list[dict[str, Any]]:
    requests = []
    for number, piece in enumerate(pieces):
        found = inputs(tensors([piece]))
        index = grpc.InferInput("CHUNK_INDEX", [1, 1], "UINT64")
        index.set_data_from_numpy(np.array([[number]], np.uint64))
        arguments = {
            "inputs": [*found, index],
            "outputs": [grpc.InferRequestedOutput("TRANSCRIPTS")],
            "sequence_id": stream,
            "sequence_start": number == 0,
            "sequence_end": number == len(pieces) - 1,
        }
        requests.append({"number": number, "arguments": arguments})
    return requests


@pytest.mark.parametrize("seed", range(6))
def test_all_chunks_at_once_give_the_right_text_or_an_error(
    server: TritonServer, client: Any, recordings: list[Recording], seed: int
) -> None:
    """As they are, and with some exchanged. 2 of 8 texts were silently wrong."""
    voice = recordings[seed].waveform[:48_000]
    pieces = np.array_split(voice, 30)
    with Client(server.grpc_url, model=TINY_STREAMING_MODEL) as ours, ours.stream() as stream:
        for piece in pieces[:-1]:
            stream.send(piece)
        expected = stream.finish(pieces[-1]).text
    requests = numbered(pieces, 1000 + seed)
    if seed % 2:
        order = random.Random(seed)
        middle = requests[1:-1]
        order.shuffle(middle)
        requests = [requests[0], *middle, requests[-1]]
    answers = in_flight(client, requests)
    last = answers[len(pieces) - 1]
    if isinstance(last, InferenceServerException):
        errors = [str(answer) for answer in answers.values() if isinstance(answer, InferenceServerException)]
        assert any("CHUNK_INDEX" in error or "START" in error for error in errors), errors
    else:
        assert last == expected
    if seed % 2:
        assert isinstance(last, InferenceServerException)


def test_our_clients_number_their_chunks(server: TritonServer) -> None:
    """A chunk that somebody else adds to the stream ends it."""
    with Client(server.grpc_url, model=TINY_STREAMING_MODEL) as ours, ours.stream() as stream:
        stream.send(SPEECH)
        with grpc.InferenceServerClient(server.grpc_url) as other, pytest.raises(InferenceServerException) as caught:
            other.infer(TINY_STREAMING_MODEL, inputs(tensors([SPEECH])), sequence_id=stream._session.sequence_id)
        assert "Expected CHUNK_INDEX 1" in str(caught.value)
