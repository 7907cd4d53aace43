"""Requests straight to the real Triton that are wrong in every way: an answer or a short refusal, neighbours right."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from moulin.client import Client
from moulin.launch.server import TritonServer
from tests.conftest import TINY_MODEL, TINY_STREAMING_MODEL, Recording

from .conftest import Seeds
from .triton_requests import good, hostile

pytestmark = pytest.mark.triton

_ANSWER_SEC = 20
_REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
}


@contextmanager
def neighbours(server: TritonServer, recordings: list[Recording]) -> Iterator[list[str]]:
    """Good requests all the while; the wrong answers among them."""
    wrong: list[str] = []
    done = threading.Event()

    def ask() -> None:
        with Client(server.grpc_url) as client:
            for recording in cycle(recordings[:4]):
                if done.is_set():
                    return
                found = client.transcribe(recording.waveform).text
                if found != recording.text:
                    wrong.append(f"{found} instead of {recording.text}")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield wrong
    finally:
        done.set()
        asking.join(60)


@pytest.mark.parametrize(
    ("model", "streaming"), [("transducer", False), (TINY_MODEL, False), (TINY_STREAMING_MODEL, True)]
)
def test_requests(
    server: TritonServer,
    recordings: list[Recording],
    model: str,
    seeds: Seeds,
    survived: dict[str, int],
    *,
    streaming: bool,
) -> None:
    bad = []
    with grpc.insecure_channel(server.grpc_url) as channel, neighbours(server, recordings) as wrong:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for seed in seeds(0.6):
            request = hostile(model, seed, streaming=streaming)
            try:
                stub.ModelInfer(request, timeout=_ANSWER_SEC)
                status = "answered"
            except grpc.RpcError as error:
                status = error.code().name
                if error.code() not in _REFUSED and not _is_too_long(error.details()):
                    bad.append((seed, status, error.details()[:500]))
            survived[status] = survived.get(status, 0) + 1
        if not streaming:
            assert stub.ModelInfer(good(model), timeout=_ANSWER_SEC).outputs
    assert (wrong, bad) == ([], [])


def _is_too_long(details: str) -> bool:
    """Whether Triton itself has quoted more of a request than gRPC carries."""
    return "metadata size exceeds" in details
