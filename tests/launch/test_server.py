"""The real tritonserver, with models of a few lines."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch.server import ServerFailed, TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.shared_memory import SHM_DIR
from moulin.launch.tritonserver import TritonInstallation
from tests.cli.command import eventually

from .repository import initialize_with, write_model

FREE_PORTS = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_sec=5)
NO_INSTALLATION = TritonInstallation(Path("/bin/false"), None, None, None, "path", None)


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def _family(text: str) -> list[int]:
    """Processes whose command line holds `text`: the server and its stubs name their model repository."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().decode(errors="replace")
            if text in arguments and "triton" in arguments.split("\0")[0]:
                found.append(int(process.name))
    return found


_others: set[str] = set()


@pytest.fixture(autouse=True)
def remember_others() -> None:
    """The server that the session shares may be running: its regions are not ours."""
    _others.clear()
    _others.update(_regions())


def _regions() -> set[str]:
    return {path.name for path in SHM_DIR.glob(f"moulin-*-{os.getpid()}-*")} - _others


@pytest.mark.triton
def test_starts_serves_and_leaves_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    repository = write_model(tmp_path / "models", "echo")
    with TritonServer(repository, FREE_PORTS, on_line=lines.append) as server:
        assert not server.is_ready()
        server.wait_ready(300)
        assert len(_family(str(repository))) == 2
        assert _regions()
        assert server.poll() is None
        host, _, port = server.metrics_url.removeprefix("http://").removesuffix("/metrics").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        connection.close()
        assert len({server.http_url, server.grpc_url, server.metrics_url}) == 3
        assert server.pid is not None
        assert os.getsid(server.pid) == server.pid
    assert server.poll() == 0
    assert _family(str(repository)) == []
    assert _regions() == set()
    assert any("successfully loaded 'echo'" in line for line in lines)
    assert lines[-200:] == server.log_tail
    server.stop()
    assert server.poll() == 0


@pytest.mark.triton
def test_a_failing_initialize_is_the_reason(tmp_path: Path) -> None:
    code = initialize_with(r'raise ValueError("Expected tokens.txt in /x,\ngot none (hint: fetch it)")')
    repository = write_model(tmp_path / "models", "bad", code)
    with TritonServer(repository, FREE_PORTS) as server, pytest.raises(LaunchError) as caught:
        server.wait_ready(300)
    assert caught.value.message.endswith("model 'bad': ValueError: Expected tokens.txt in /x, got none")
    assert "exited with code 1" in caught.value.message
    assert caught.value.hint == "fetch it"
    assert _family(str(repository)) == []


@pytest.mark.triton
def test_a_broken_config_is_the_reason(tmp_path: Path) -> None:
    repository = write_model(tmp_path / "models", "odd", config="nonsense: 1\n")
    with (
        TritonServer(repository, FREE_PORTS) as server,
        pytest.raises(LaunchError, match='no field named "nonsense"'),
    ):
        server.wait_ready(300)


@pytest.mark.triton
def test_not_ready_in_time_names_the_model(tmp_path: Path) -> None:
    repository = write_model(tmp_path / "models", "slow", initialize_with("import time; time.sleep(60)"))
    started = time.monotonic()
    with (
        TritonServer(repository, FREE_PORTS) as server,
        pytest.raises(LaunchError, match=r"within 1\.5 s, got models still loading: slow"),
    ):
        server.wait_ready(1.5)
    assert time.monotonic() - started < 50
    assert _family(str(repository)) == []
    assert _regions() == set()


@pytest.mark.triton
def test_a_killed_server_is_noticed_and_cleared_up(tmp_path: Path) -> None:
    repository = write_model(tmp_path / "models", "echo")
    with TritonServer(repository, FREE_PORTS) as server:
        server.wait_ready(300)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait(60) == -signal.SIGKILL
        assert _family(str(repository)) == []
        assert _regions() == set()
        with pytest.raises(LaunchError, match="ended by SIGKILL"):
            server.wait_ready(5)


@pytest.mark.triton
def test_stubs_end_when_the_server_fails_after_loading(tmp_path: Path, busy_port: int) -> None:
    # On a busy gRPC port tritonserver exits without unloading its models.
    repository = write_model(tmp_path / "models", "echo")
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, extra_args=(f"--grpc-port={busy_port}",))
    with TritonServer(repository, options) as server, pytest.raises(LaunchError, match="already in use"):
        server.wait_ready(300)
    assert _family(str(repository)) == []
    assert _regions() == set()


@pytest.mark.triton
@pytest.mark.parametrize("body", ["pass", "import time; time.sleep(60)"], ids=["ready", "loading"])
def test_the_server_ends_with_a_killed_owner(tmp_path: Path, body: str) -> None:
    repository = write_model(tmp_path / "models", "model", initialize_with(body))
    owner_code = f"""
import threading
from pathlib import Path
from moulin.launch.server_options import ServerOptions
from moulin.launch.server import TritonServer

server = TritonServer(Path({str(repository)!r}), ServerOptions(http_port=0, grpc_port=0, metrics_port=0))
starter = threading.Thread(target=server.start)  # the end of the thread that starts it must not end the server
starter.start()
starter.join()
{"server.wait_ready(300)" if body == "pass" else ""}
print(server.is_ready(), server.poll(), flush=True)
server.wait()
"""
    with subprocess.Popen([sys.executable, "-c", owner_code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().split() == [str(body == "pass"), "None"]
        assert eventually(lambda: len(_family(str(repository))) == 2)
        owner.kill()
        owner.wait()
    assert eventually(lambda: not _family(str(repository))), "tritonserver or its stub outlived the owner"
    assert eventually(lambda: not list(SHM_DIR.glob(f"moulin-*-{owner.pid}-*")))


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        ("--http-port", lambda port: dataclasses.replace(FREE_PORTS, http_port=port)),
        ("--grpc-port", lambda port: dataclasses.replace(FREE_PORTS, grpc_port=port)),
        ("--metrics-port", lambda port: dataclasses.replace(FREE_PORTS, metrics_port=port)),
    ],
)
def test_a_busy_port_is_named_with_its_flag(
    tmp_path: Path, busy_port: int, flag: str, options: Callable[[int], ServerOptions]
) -> None:
    server = TritonServer(tmp_path, options(busy_port), installation=NO_INSTALLATION)
    with pytest.raises(LaunchError, match=f"port {busy_port}") as caught:
        server.start()
    assert flag in str(caught.value.hint)
    server.stop()


def test_one_port_cannot_serve_twice(tmp_path: Path, busy_port: int) -> None:
    options = ServerOptions(http_port=busy_port + 1, grpc_port=busy_port + 1, metrics_port=0)
    with pytest.raises(LaunchError, match="twice"):
        TritonServer(tmp_path, options, installation=NO_INSTALLATION).start()


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"model repository at .*absent"):
        TritonServer(tmp_path / "absent", FREE_PORTS, installation=NO_INSTALLATION).start()


def test_a_program_that_is_not_tritonserver(tmp_path: Path) -> None:
    with (
        TritonServer(tmp_path, FREE_PORTS, installation=NO_INSTALLATION) as server,
        pytest.raises(LaunchError, match="exited with code 1: no output"),
    ):
        server.wait_ready(10)
    with pytest.raises(LaunchError, match="started before"):
        server.start()


def test_what_the_process_leaves_running_is_ended(tmp_path: Path) -> None:
    # tritonserver sometimes exits without its stubs, which then wait for ever.
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\nsleep 60 &\necho child $!\nexit 3\n")
    program.chmod(0o755)
    installation = dataclasses.replace(NO_INSTALLATION, binary=program)
    with TritonServer(tmp_path, FREE_PORTS, installation=installation) as server:
        assert server.wait(60) == 3
    child = server.log_tail[0].removeprefix("child ")
    assert eventually(lambda: not Path("/proc", child).exists() or " Z " in Path("/proc", child, "stat").read_text())


def test_never_started(tmp_path: Path) -> None:
    server = TritonServer(tmp_path)
    server.stop()
    assert (server.poll(), server.wait(), server.pid) == (None, None, None)
    assert (server.http_url, server.grpc_url) == ("127.0.0.1:8000", "127.0.0.1:8001")
    assert server.metrics_url == "http://127.0.0.1:8002/metrics"


def test_urls_of_a_server_on_all_addresses(tmp_path: Path) -> None:
    assert TritonServer(tmp_path, ServerOptions(host="0.0.0.0")).grpc_url == "127.0.0.1:8001"
    assert TritonServer(tmp_path, ServerOptions(host="::")).grpc_url == "[::1]:8001"


@pytest.mark.triton
def test_a_model_that_fails_while_another_loads_is_told_with_its_reason(tmp_path: Path) -> None:
    write_model(tmp_path, "broken", initialize_with("import time; time.sleep(4); raise ValueError('no shared memory')"))
    repository = write_model(tmp_path, "slow", initialize_with("import time; time.sleep(600)"))
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)
    message = "The process of broken_0_0 has died while it loaded: model 'broken': .*no shared memory"
    with TritonServer(repository, options) as server:
        with pytest.raises(ServerFailed, match=message):
            server.wait_ready()
        server.kill()
