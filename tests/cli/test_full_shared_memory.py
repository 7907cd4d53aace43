"""`moulin serve` in a small /dev/shm of its own that others fill while it serves: nobody waits, and it recovers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from moulin.arrays import Floats
from moulin.client import Client
from moulin.client.protocol import client_error
from moulin.client.sync_bundle import StreamBundle
from moulin.errors import ClientError, ServerBusy, ServerUnavailable
from tests.bundles import BUNDLES
from tests.triton_repo.sherpa_client import inputs, tensors

from .command import MOULIN, Serving, eventually
from .test_full_disk import _allowed  # noqa: F401

pytestmark = pytest.mark.triton

SHM_MB = 56
MODELS = [str(BUNDLES / "conformer-offline"), str(BUNDLES / "lstm-streaming")]
OPTIONS = ["--http-port=0", "--grpc-port=0", "--metrics-port=0", "--no-gateway"]
SPEECH = np.random.default_rng(2).normal(0, 0.05, 32_000).astype(np.float32)
PATIENCE_SEC = 60.0
MB = 1 << 20


class Memory:
    """The /dev/shm of a service, and a file of another program in it."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}/root/dev/shm")
        self._other = self._folder / "of-another-program"

    @property
    def free(self) -> int:
        free = os.statvfs(self._folder)
        return free.f_bavail * free.f_frsize

    def fill(self, but: int = 0) -> None:
        """Leave `but` bytes."""
        file = os.open(self._other, os.O_CREAT | os.O_WRONLY)
        if self.free > but:
            os.posix_fallocate(file, 0, self.free - but)
        os.close(file)
        assert self.free == but

    def empty(self) -> None:
        self._other.unlink()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    script = f'mount -t tmpfs -o size={SHM_MB}m x /dev/shm; exec "$@"'
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", MOULIN, "serve", *MODELS, *OPTIONS]
    started = Serving.start(command, tmp_path_factory.mktemp("served"))
    started.wait_ready()
    yield started
    started.kill()


@pytest.fixture
def memory(serving: Serving) -> Iterator[Memory]:
    found = Memory(serving.process.pid)
    yield found
    if found._other.exists():
        found.empty()


def recording(url: str, audio: Floats) -> str:
    with Client(url, timeout_sec=PATIENCE_SEC) as client:
        return client.transcribe(audio).text


def stream(url: str, audio: Floats) -> str:
    with Client(url, timeout_sec=PATIENCE_SEC) as client, client.stream() as live:
        for begin in range(0, len(audio), 8000):
            live.send(audio[begin : begin + 8000])
        return live.finish().text


def lane(url: str, audio: Floats) -> str:
    with StreamBundle(url, timeout_sec=PATIENCE_SEC) as bundle:
        return bundle.open().finish(audio).text


WAYS = [recording, stream, lane]


@pytest.mark.parametrize(("model", "more"), [("transducer", {}), ("transducer_streaming", {"sequence_start": True})])
def test_a_reply_that_finds_no_room_is_an_error_at_once(
    model: str, more: dict[str, Any], serving: Serving, memory: Memory
) -> None:
    """The reply names its request, whose id is long here, and twice as long as JSON. Comes first: what other requests
    have made Triton take would do for it."""
    family, id_bytes = serving.family, 3 * MB
    request = {"request_id": '"' * id_bytes, "outputs": [grpc.InferRequestedOutput("RESULT")]}
    if more:
        more = {**more, "sequence_end": True, "sequence_id": 7}
    with grpc.InferenceServerClient(serving.grpc_url) as client:
        memory.fill(id_bytes + 2 * MB)
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, inputs(tensors([SPEECH])), client_timeout=PATIENCE_SEC, **request, **more)
        assert caught.value.status() == "StatusCode.INTERNAL", caught.value
        assert "shared memory" in str(client_error(caught.value, serving.grpc_url, model))
        memory.empty()
        result = client.infer(model, inputs(tensors([SPEECH])), client_timeout=PATIENCE_SEC, **request, **more)
        assert result.as_numpy("RESULT") is not None
    assert serving.find_family() >= family, serving.err
    assert "no shared memory for a reply" in serving.err


def test_a_long_recording_that_finds_no_room_is_refused_and_others_are_served(serving: Serving) -> None:
    """The contract takes 40 s, and more of padding."""
    url = serving.grpc_url
    right = {way: way(url, SPEECH) for way in WAYS}
    with Client(url, timeout_sec=PATIENCE_SEC) as client, pytest.raises(ClientError, match="shared memory") as caught:
        client.transcribe(np.resize(SPEECH, 16 * MB))
    assert "--shm-size" in str(caught.value.hint)
    assert {way: way(url, SPEECH) for way in WAYS} == right


def test_nobody_waits_while_it_is_full_and_all_are_served_behind_it(serving: Serving, memory: Memory) -> None:
    url, family = serving.grpc_url, serving.family
    right = {way: way(url, SPEECH) for way in WAYS}
    memory.fill()
    for audio in (SPEECH, np.resize(SPEECH, 10 * 16_000)):
        for way in WAYS:
            with contextlib.suppress(ServerBusy, ServerUnavailable):  # not ServerTimeout
                way(url, audio)
    memory.empty()
    assert eventually(lambda: _served(url) == right)
    assert serving.find_family() >= family, serving.err


def _served(url: str) -> dict[Any, str]:
    try:
        return {way: way(url, SPEECH) for way in WAYS}
    except ClientError:
        return {}


def test_the_server_outlives_large_padding_before_and_while_it_is_full(serving: Serving, memory: Memory) -> None:
    """Where the pages of the first request are given back tritonserver ends with SIGBUS at the second."""
    family = serving.family
    padding = {"WAV": np.zeros((1, 4_500_000), np.float32), "WAV_LENS": np.zeros((1, 1), np.int32)}
    with grpc.InferenceServerClient(serving.grpc_url) as client:
        client.infer("transducer", inputs(padding), client_timeout=PATIENCE_SEC)
        memory.fill()
        client.infer("transducer", inputs(padding), client_timeout=PATIENCE_SEC)
    assert serving.find_family() >= family, serving.err
