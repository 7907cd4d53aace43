"""A gateway whose Triton dies under load and returns, and what reaches Triton's own log."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from moulin.bundle.load import load_bundle
from moulin.launch.ports import claim_ports
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository
from tests.bundles import BUNDLES
from tests.cli.command import eventually
from tests.conftest import Recording

from .running_gateway import running_gateway

pytestmark = pytest.mark.triton


class Clients:
    """Some that send a recording again and again, each as soon as it has its answer."""

    def __init__(self, address: str, content: bytes, count: int) -> None:
        self.answers: list[httpx.Response] = []
        self._stop = threading.Event()
        self._url, self._content = f"http://{address}/v1/audio/transcriptions", content
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def seen(self, status: int) -> bool:
        """Whether all of the last answers have this status."""
        last = [answer.status_code for answer in self.answers[-8:]]
        return len(last) == 8 and set(last) == {status}

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                answer = client.post(self._url, files={"file": self._content}, data={"model": "whisper-1"})
                self.answers.append(answer)
                if answer.status_code != 200:
                    self._stop.wait(0.1)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    build_offline_repository(load_bundle(BUNDLES / "conformer-offline"), tmp_path, OfflineOptions())
    return tmp_path


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_triton_dies_under_load_and_returns(repository: Path, recordings: list[Recording], running: ExitStack) -> None:
    ports = claim_ports("127.0.0.1", {"--http-port": 0, "--grpc-port": 0, "--metrics-port": 0})
    options = ServerOptions(ports["--http-port"], ports["--grpc-port"], ports["--metrics-port"], exit_timeout_sec=1)
    first = running.enter_context(TritonServer(repository, options))
    first.wait_ready()
    address = running.enter_context(running_gateway(first.grpc_url))
    clients = Clients(address, recordings[0].file.read_bytes(), 4)
    running.callback(clients.stop)
    assert eventually(lambda: clients.seen(200))

    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    assert eventually(lambda: clients.seen(503))
    assert httpx.get(f"http://{address}/readyz").status_code == 503
    assert httpx.get(f"http://{address}/healthz").status_code == 200
    first.wait()

    again = running.enter_context(TritonServer(repository, options))
    again.wait_ready()
    assert eventually(lambda: clients.seen(200))
    assert httpx.get(f"http://{address}/readyz").status_code == 200
    clients.stop()

    assert {answer.status_code for answer in clients.answers} == {200, 503}
    for answer in clients.answers:
        if answer.status_code == 503:
            error = answer.json()["error"]
            assert (error["type"], error["code"]) == ("server_error", "server_unavailable")
            assert error["message"].startswith(f"No Triton server answers at {first.grpc_url}: ")
            assert answer.headers["retry-after"] == "1"


def test_the_request_id_reaches_triton(repository: Path, recordings: list[Recording], running: ExitStack) -> None:
    lines: list[str] = []
    options = ServerOptions(0, 0, 0, exit_timeout_sec=1, log_verbose=1)
    server = running.enter_context(TritonServer(repository, options, on_line=lines.append))
    server.wait_ready()
    address = running.enter_context(running_gateway(server.grpc_url))
    answer = httpx.post(
        f"http://{address}/v1/audio/transcriptions",
        files={"file": recordings[0].file.read_bytes()},
        data={"model": "whisper-1"},
        headers={"x-request-id": "order-66"},
        timeout=60,
    )
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "order-66")
    assert eventually(lambda: any("request id: order-66" in line for line in lines))
