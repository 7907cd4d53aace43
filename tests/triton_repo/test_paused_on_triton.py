"""A model's process that is stopped for two seconds while requests wait: nobody gets another's words.

Triton gives up waiting after one, and took the late reply for the reply to the next requests.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.client import Client
from moulin.errors import ClientError
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.stubs import has_ended, running_stubs
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.cli.command import eventually

pytestmark = pytest.mark.triton

PAUSE_SEC = 2.2
CLIENTS = 8
TIMEOUT_SEC = 8
"""The requests of a model that has died are not always answered."""

Ask = Callable[[Client, Floats], str]


def offline(client: Client, waveform: Floats) -> str:
    return client.transcribe(waveform).text


def live(client: Client, waveform: Floats) -> str:
    with client.stream() as stream:
        stream.send(waveform)
        return stream.finish().text


def heard_live(waveform: Floats) -> str:
    with open_stream_recognizer(BUNDLES / "lstm-streaming") as recognizer:
        stream = recognizer.open()
        recognizer.accept(stream, waveform)
        recognizer.finish(stream)
        update = recognizer.advance(stream)
        return " ".join(segment.text for segment in update.segments)


@pytest.mark.parametrize("mode", ["offline", "streaming"])
def test_replies_after_a_pause(mode: str, snippets: list[tuple[Floats, str]], tmp_path: Path) -> None:
    if mode == "offline":
        bundle = load_bundle(BUNDLES / "conformer-offline", expect="offline")
        build_offline_repository(bundle, tmp_path, OfflineOptions())
        ask, expected = offline, snippets
    else:
        bundle = load_bundle(BUNDLES / "lstm-streaming", expect="streaming")
        build_streaming_repository(bundle, tmp_path, StreamingOptions(model_name="transducer"))
        ask, expected = live, [(waveform, heard_live(waveform)) for waveform, _ in snippets]
        assert len({text for _, text in expected}) > 4
    with TritonServer(tmp_path, ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as server:
        server.wait_ready()
        assert server.pid is not None
        ((stub, _),) = running_stubs(server.pid).items()
        crowd = Crowd(server.grpc_url, ask, expected)
        assert eventually(lambda: crowd.right > 2 * CLIENTS)
        for _ in range(20):  # Triton waits for nothing where all replies are already on their way by a sender
            os.kill(stub, signal.SIGSTOP)
            time.sleep(PAUSE_SEC)
            os.kill(stub, signal.SIGCONT)
            time.sleep(0.5)
            if has_ended(stub):
                break
        assert has_ended(stub)
        crowd.stop()
        assert crowd.wrong == []
        assert crowd.refused


class Crowd:
    """Clients that ask again and again until an answer is an error or wrong."""

    def __init__(self, url: str, ask: Ask, expected: list[tuple[Floats, str]]) -> None:
        self.right = 0
        self.wrong: list[str] = []
        self.refused: list[ClientError] = []
        self._url, self._ask, self._expected = url, ask, expected
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, number: int) -> None:
        with Client(self._url, timeout_sec=TIMEOUT_SEC) as client:
            while not self._stopping.is_set():
                number += 1
                waveform, text = self._expected[number % len(self._expected)]
                try:
                    heard = self._ask(client, waveform)
                except ClientError as error:
                    self.refused.append(error)
                    time.sleep(0.01)
                    continue
                if heard == text:
                    self.right += 1
                else:
                    self.wrong.append(f"{heard!r} instead of {text!r}")
