"""The real tritonserver, and programs in its place that end as soon as they start."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch import kept_server, server
from moulin.launch.kept_server import KeptServer
from moulin.launch.liveness import Failure
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.shared_memory import SHM_DIR
from moulin.launch.stubs import running_stubs
from moulin.launch.supervision import SupervisionBoard, read_supervision
from moulin.launch.tritonserver import TritonInstallation
from tests.cli.command import eventually

from .repository import CONFIG, write_model

FREE_PORTS = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)
NO_INSTALLATION = TritonInstallation(Path("/bin/false"), None, None, None, "path", None)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_server, "_FIRST_PAUSE_SEC", 0.001)


@pytest.mark.triton
def test_what_dies_is_started_again_on_the_same_ports(tmp_path: Path) -> None:
    reasons: list[str] = []
    repository = write_model(write_model(tmp_path, "echo"), "other")
    of_others = _regions()
    with KeptServer(repository, FREE_PORTS, on_restart=reasons.append) as kept:
        first = kept.server
        assert first.pid is not None
        assert first.lost_instances() == {}
        stubs = {instance: pid for pid, instance in running_stubs(first.pid).items()}
        assert sorted(stubs) == ["echo_0_0", "other_0_0"]
        os.kill(stubs["other_0_0"], signal.SIGSEGV)
        second = _next(kept, first)
        assert first.poll() == -signal.SIGKILL
        assert second.is_ready()
        assert (second.http_url, second.grpc_url, second.metrics_url) == (
            first.http_url,
            first.grpc_url,
            first.metrics_url,
        )
        assert second.pid is not None
        os.kill(second.pid, signal.SIGABRT)
        assert _next(kept, second).is_ready()
        assert len(_regions() - of_others) == len(stubs), "those of servers that were killed are deleted"
    assert reasons[0] == "The process of other_0_0 (SIGSEGV) has died"
    assert reasons[1].startswith("tritonserver ended by SIGABRT unexpectedly: ")
    assert "# 0x" not in reasons[1]
    assert len(reasons) == 2


def _regions() -> set[Path]:
    """Of servers of this process."""
    return set(SHM_DIR.glob(f"moulin-*-{os.getpid()}-*"))


def _next(kept: KeptServer, before: TritonServer) -> TritonServer:
    for _ in range(120):
        kept.watch(0.5)
        if kept.server is not before:
            return kept.server
    raise AssertionError("nobody noticed")


@pytest.mark.parametrize("crashes", [1, 2, 3])
def test_a_first_start_that_crashes_is_tried_again_twice(crashes: int, tmp_path: Path) -> None:
    """As tritonserver does on a machine that is too busy for it while it loads its models."""
    reasons: list[str] = []
    program = tmp_path / "tritonserver"
    what = "terminate called after throwing an instance of 'boost::interprocess::lock_exception'"
    program.write_text(
        f"#!/bin/sh\necho start >> {tmp_path}/starts\n[ $(wc -l < {tmp_path}/starts) -le {crashes} ] || exit 3\n"
        f'printf "{what}\\nSignal (6) received.\\n 0# 0x00007F\\n"\nkill -ABRT $$\n'
    )
    program.chmod(0o755)
    installation = TritonInstallation(program, None, None, None, "path", None)
    kept = KeptServer(tmp_path, FREE_PORTS, installation=installation, on_restart=reasons.append)
    last = f"SIGABRT: {what}" if crashes == 3 else "exited with code 3"
    with pytest.raises(LaunchError, match=last), kept:
        pass
    crash = f"Expected tritonserver to become ready, got: ended by SIGABRT: {what}"
    assert reasons == [crash] * min(crashes, 2)


def test_what_always_dies_is_given_up(tmp_path: Path) -> None:
    reasons: list[str] = []
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\necho no memory\nexit 3\n")
    program.chmod(0o755)
    installation = TritonInstallation(program, None, None, None, "path", None)
    kept = KeptServer(tmp_path, FREE_PORTS, installation=installation, on_restart=reasons.append)
    # The first start is its caller's to judge: what never was ready is not started again.
    with pytest.raises(LaunchError, match="exited with code 3: no memory"), kept:
        pass
    assert reasons == []
    with pytest.raises(LaunchError, match="no memory, for the 6th time in 10 minutes"):
        kept.watch(10)
    assert len(reasons) == 5


_WITH_HEART = """
import ctypes, os, time
from pathlib import Path
import triton_python_backend_utils as pb_utils
from moulin.launch.heartbeat import Heartbeat


class TritonPythonModel:
    def initialize(self, args):
        {initialize}
        self.heart = Heartbeat()

    def execute(self, requests):
        return []

    def finalize(self):
        {finalize}
"""


def _model(initialize: str = "pass", finalize: str = "pass") -> str:
    return _WITH_HEART.format(initialize=initialize, finalize=finalize)


@pytest.mark.triton
@pytest.mark.parametrize("victim", ["tritonserver", "echo_0_0"])
def test_what_is_stopped_by_a_signal_is_started_again(tmp_path: Path, victim: str) -> None:
    reasons: list[str] = []
    board = SupervisionBoard()
    with KeptServer(write_model(tmp_path, "echo"), FREE_PORTS, on_restart=reasons.append, board=board) as kept:
        first = kept.server
        assert first.pid is not None
        stubs = {instance: pid for pid, instance in running_stubs(first.pid).items()}
        began = time.monotonic()
        os.kill({"tritonserver": first.pid, **stubs}[victim], signal.SIGSTOP)
        assert _next(kept, first).is_ready()
        assert time.monotonic() - began < 60
    assert len(reasons) == 1
    assert reasons[0].endswith(" is stopped (SIGSTOP)")
    assert read_supervision(board.fd)["tritonserver"].restarts == {"stopped": 1}
    assert read_supervision(board.fd)["tritonserver"].state == "running"


@pytest.mark.triton
def test_a_hung_interpreter_of_a_model_is_found(tmp_path: Path) -> None:
    reasons: list[str] = []
    code = _model(
        "threading.Timer(3, lambda: Path(F).exists() or (Path(F).touch(), ctypes.PyDLL(None).sleep(999))).start()"
    )
    code = f"import threading\nF = {str(tmp_path / 'hung-once')!r}\n" + code
    with KeptServer(write_model(tmp_path / "models", "echo", code), FREE_PORTS, on_restart=reasons.append) as kept:
        first = kept.server
        began = time.monotonic()
        while kept.server is first and time.monotonic() < began + 60:
            kept.watch(1)
        assert kept.server.is_ready()
    assert reasons == ["The process of echo_0_0 hangs: its interpreter shows no sign of life"]


@pytest.mark.triton
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_stub_that_goes_while_it_loads(tmp_path: Path, number: signal.Signals) -> None:
    """At its second load: the first start is the caller's to judge."""
    reasons: list[str] = []
    victim = tmp_path / "victim"
    # The second process writes its number and waits for its fate; the third loads.
    code = _model(
        "n = len(Path(F).read_text().split()); Path(F).open('a').write(f' {os.getpid()}'); time.sleep(60 * (n == 1))"
    )
    victim.write_text("")
    repository = write_model(tmp_path / "models", "echo", f"F = {str(victim)!r}\n" + code)
    with KeptServer(repository, FREE_PORTS, on_restart=reasons.append) as kept:
        first = kept.server
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        found: list[float] = []

        def strike() -> None:
            assert eventually(lambda: len(victim.read_text().split()) == 2)
            found.append(time.monotonic())
            os.kill(int(victim.read_text().split()[1]), number)

        thread = threading.Thread(target=strike)
        thread.start()
        kept.watch(10)
        thread.join()
        assert kept.server.is_ready()
        assert time.monotonic() - found[0] < 45  # the load would take a minute
    assert len(reasons) == 2


@pytest.mark.triton
def test_a_long_load_is_none_of_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that computes for longer than an idle one may take."""
    monkeypatch.setattr(server, "_IDLE_LOAD_SEC", 4.0)
    busy = "until = time.monotonic() + 8\n        while time.monotonic() < until: pass"
    with KeptServer(write_model(tmp_path, "echo", _model(busy)), FREE_PORTS, on_restart=print) as kept:
        assert kept.server.is_ready()


@pytest.mark.triton
def test_a_load_that_does_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_IDLE_LOAD_SEC", 4.0)
    kept = KeptServer(write_model(tmp_path, "echo", _model("time.sleep(100)")), FREE_PORTS, on_restart=print)
    with pytest.raises(LaunchError, match="got 4 s in which it did nothing for: echo") as raised, kept:
        pass
    assert "--verbose" in str(raised.value.hint)  # there is no option for more time


@pytest.mark.triton
def test_several_instances_need_not_be_unloaded(tmp_path: Path) -> None:
    """Triton unloads one after the other, and counts that into its exit timeout. Nobody waits for it: when no request
    is left, the server ends in order."""
    config = CONFIG.replace("count: 1", "count: 4")
    repository = write_model(tmp_path, "slow", _model(finalize="time.sleep(8)"), config)
    lines: list[str] = []
    with KeptServer(repository, FREE_PORTS, on_line=lines.append, on_restart=print) as kept:
        kept.watch(1.5)  # by which a connection for health is open, for which Triton would wait
        began = time.monotonic()
        kept.stop()
        assert time.monotonic() - began < 31  # one after the other they would take 32 s
        assert kept.server.poll() == 0
    assert not any("Exit timeout expired" in line for line in lines)
    assert any("unloading models" in line for line in lines)


def test_a_server_that_runs_well_is_never_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten ends, each of a server that had become ready."""
    reasons: list[str] = []
    kept = KeptServer(tmp_path, FREE_PORTS, installation=NO_INSTALLATION, on_restart=reasons.append)
    monkeypatch.setattr(TritonServer, "start", lambda _self: None)
    monkeypatch.setattr(TritonServer, "wait_ready", lambda _self, **_: None)
    monkeypatch.setattr(TritonServer, "failure", lambda _self: Failure("ended", "It ended"))
    with kept:
        for _ in range(10):
            kept.watch(1)
    assert reasons == ["It ended"] * 10
