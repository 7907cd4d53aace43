"""The real tritonserver, and programs in its place that end as soon as they start."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch import kept_server
from moulin.launch.kept_server import KeptServer
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.stubs import running_stubs
from moulin.launch.tritonserver import TritonInstallation

from .repository import write_model

FREE_PORTS = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_server, "_FIRST_PAUSE_SEC", 0.001)


@pytest.mark.triton
def test_what_dies_is_started_again_on_the_same_ports(tmp_path: Path) -> None:
    reasons: list[str] = []
    repository = write_model(write_model(tmp_path, "echo"), "other")
    with KeptServer(repository, FREE_PORTS, on_restart=reasons.append) as kept:
        first = kept.server
        assert first.pid is not None
        assert first.lost_instances() == []
        stubs = {instance: pid for pid, instance in running_stubs(first.pid).items()}
        assert sorted(stubs) == ["echo_0_0", "other_0_0"]
        os.kill(stubs["other_0_0"], signal.SIGKILL)
        second = _next(kept, first)
        assert first.poll() == -signal.SIGKILL
        assert second.is_ready()
        assert (second.http_url, second.grpc_url, second.metrics_url) == (
            first.http_url,
            first.grpc_url,
            first.metrics_url,
        )
        assert second.pid is not None
        os.kill(second.pid, signal.SIGKILL)
        assert _next(kept, second).is_ready()
    assert reasons[0] == "The process of other_0_0 has died"
    assert reasons[1].startswith("tritonserver ended unexpectedly with exit code -9: ")
    assert len(reasons) == 2


def _next(kept: KeptServer, before: TritonServer) -> TritonServer:
    for _ in range(10):
        kept.watch(0.5)
        if kept.server is not before:
            return kept.server
    raise AssertionError("nobody noticed")


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
