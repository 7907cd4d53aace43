"""Stub processes in a folder like /proc; the real ones are in test_kept_server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moulin.launch.stubs import has_ended, running_stubs

STUB = ("/opt/backends/python/triton_python_backend_stub", "model.py", "region", "transducer_0_0", "DEFAULT")


def _process(proc: Path, pid: int, parent: int, *arguments: str, state: str = "S") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "cmdline").write_bytes(b"".join(argument.encode() + b"\0" for argument in arguments))
    (folder / "stat").write_text(f"{pid} (a ) name) {state} {parent} 1 1 0")


def test_only_stubs_of_this_server_are_found(tmp_path: Path) -> None:
    _process(tmp_path, 11, 7, *STUB)
    _process(tmp_path, 12, 8, *STUB)
    _process(tmp_path, 13, 7, "/usr/bin/python3", "-c", "pass")
    _process(tmp_path, 14, 7)
    (tmp_path / "15").mkdir()  # ends while the folder is read
    assert running_stubs(7, tmp_path) == {11: "transducer_0_0"}


@pytest.mark.parametrize(("state", "ended"), [("S", False), ("R", False), ("Z", True)])
def test_a_zombie_has_ended(state: str, ended: bool, tmp_path: Path) -> None:
    _process(tmp_path, 11, 7, state=state)
    assert has_ended(11, tmp_path) is ended


def test_a_real_child() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not has_ended(child.pid)
    child.communicate(b"\n")
    assert has_ended(child.pid)
    assert not has_ended(os.getpid())
