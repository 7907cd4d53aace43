"""Two `moulin serve` with one cache folder, each process 1 of its own PID namespace, as in two containers."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from moulin.client import Client
from moulin.errors import ServerUnavailable
from tests.bundles import BUNDLES
from tests.conftest import Recording

from .command import MOULIN, Serving, eventually

pytestmark = pytest.mark.triton

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
FLAGS = ["--http-port=0", "--grpc-port=0", "--metrics-port=0", "--no-gateway"]


@pytest.fixture
def contain(tmp_path: Path) -> Iterator[Callable[[str], Serving]]:
    """Starts one with a model; the cache is shared."""
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("PID namespaces are not allowed here")
    started: list[Serving] = []

    def start(model: str) -> Serving:
        # No shell: moulin itself is to be process 1.
        command = [*UNSHARE, MOULIN, "serve", str(BUNDLES / model), *FLAGS]
        folder = tmp_path / model
        serving = Serving.start(command, folder, cache=tmp_path / "cache")
        started.append(serving)
        return serving

    yield start
    for serving in started:
        serving.kill()


def _text(serving: Serving, recording: Recording) -> str:
    """Its text; "" while the server is not there."""
    with Client(serving.grpc_url) as client, suppress(ServerUnavailable):
        return client.transcribe(recording.file).text
    return ""


def test_neither_touches_the_others_model(contain: Callable[[str], Serving], recordings: list[Recording]) -> None:
    first = contain("conformer-offline")
    first.wait_ready()
    expected = _text(first, recordings[0])
    second = contain("zipformer2-offline")
    second.wait_ready()
    assert _text(second, recordings[0]) != expected
    # A restart reads the model folder once more.
    (stub, *_) = [pid for pid in first.family if b"_stub\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    _kill(stub)
    assert eventually(lambda: "is started again" in first.err)
    assert eventually(lambda: _text(first, recordings[0]) != "")
    assert _text(first, recordings[0]) == expected
    second.process.send_signal(signal.SIGKILL)
    second.process.wait()
    third = contain("zipformer2-offline")  # sweeps what the second left
    third.wait_ready()
    assert _text(first, recordings[0]) == expected
    assert len(list((first.cache / "moulin" / "workspaces").glob("at-*"))) == 2


def _kill(pid: int) -> None:
    subprocess.run(["kill", "-9", str(pid)], check=True)
