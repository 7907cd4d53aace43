from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch import doctor
from moulin.launch.doctor import examine


def test_this_machine() -> None:
    checks = {check.name: check for check in examine(http_port=0, grpc_port=0, metrics_port=0, gateway_port=0)}
    assert checks["Python"].ok
    for name in ("tritonserver", "python stub", "libpython", "onnxruntime", "kaldi-native-fbank", "soundfile"):
        assert checks[name].required
        assert checks[name].ok, checks[name]
    assert "CPUExecutionProvider" in checks["onnxruntime"].detail
    assert not checks["GPU"].required
    assert all(check.ok or check.hint for check in checks.values())


def test_no_c_compiler_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "c_compiler", lambda: None)
    check = next(check for check in examine() if check.name.startswith("C compiler"))
    assert (check.ok, check.required, check.detail) == (False, False, "not found")
    assert "gcc" in (check.hint or "")


def test_a_missing_tritonserver_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_binary: Path | None, **_options: object) -> None:
        raise LaunchError("Expected tritonserver, got none", hint="install it")

    monkeypatch.setattr(doctor, "find_tritonserver", missing)
    check = next(check for check in examine() if check.name == "tritonserver")
    assert (check.ok, check.required, check.hint) == (False, True, "install it")
    assert check.detail == "Expected tritonserver, got none"


def test_a_busy_port_and_no_shared_memory_are_findings(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        checks = {check.name: check for check in examine(grpc_port=port, shm_dir=tmp_path / "absent")}
    assert not checks[f"port {port}"].ok
    assert "--grpc-port" in str(checks[f"port {port}"].hint)
    assert not checks["shared memory"].ok


def test_importing_the_room_is_cheap() -> None:
    code = "import sys, moulin.launch; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "onnxruntime", "soundfile", "pytriton", "grpc", "torch"} & set(modules)


def test_few_open_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _which: (64, 64))
    (check,) = [check for check in examine(cache=tmp_path) if check.name == "open files"]
    assert (check.ok, check.detail) == (False, "64 at most (ulimit -Hn)")
    assert "ulimit -n 65536" in str(check.hint)
