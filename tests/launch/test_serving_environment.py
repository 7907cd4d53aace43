"""The environment for Triton with doubles of pip and of the packages; the real one is made by scripts/test-wheel.sh."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch import serving_environment
from moulin.launch.interpreters import Interpreter
from moulin.launch.serving_environment import find_serving_environment, make_serving_environment
from moulin.launch.tritonserver import suits_stub

REQUIREMENTS = ("numpy>=1.26,<2",)


@pytest.fixture
def fills(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was installed, instead of by pip."""
    installed: list[str] = []
    real = Interpreter(Path(sys.executable).resolve(), "3.11.7", Path(sys.executable).resolve())

    def install(python: Path, arguments: Sequence[str], _say: object) -> None:
        installed.extend(arguments)
        packages = python.parent.parent / "lib" / "python3.11" / "site-packages"
        for module in ("numpy", "onnx", "onnxruntime", "kaldi_native_fbank", "pytriton/tritonserver/bin"):
            (packages / module).mkdir(parents=True, exist_ok=True)
        (packages / "pytriton/tritonserver/bin/tritonserver").touch()

    def run(_python: Path, arguments: Sequence[str], *, what: str) -> str:
        if "venv" in what or "virtual" in what:
            Path(arguments[-1]).mkdir(parents=True)
        return '{"numpy": "1.26.4", "nvidia-pytriton": "0.7.0"}'

    monkeypatch.setattr(serving_environment, "install_packages", install)
    monkeypatch.setattr(serving_environment, "run_python", run)
    monkeypatch.setattr(serving_environment, "find_interpreter", lambda _managed: real)
    return installed


def test_it_is_made_once_and_again_when_a_piece_is_gone(fills: list[str], tmp_path: Path) -> None:
    made = make_serving_environment(REQUIREMENTS, tmp_path)
    assert (made.numpy, made.pytriton) == ("1.26.4", "0.7.0")
    assert find_serving_environment(REQUIREMENTS, tmp_path) == made
    once = len(fills)
    assert make_serving_environment(REQUIREMENTS, tmp_path) == made
    assert len(fills) == once
    assert find_serving_environment(("numpy>=1.26,<2", "torch==2.13.0"), tmp_path) is None
    (made.tritonserver / "bin" / "tritonserver").unlink()
    assert find_serving_environment(REQUIREMENTS, tmp_path) is None
    assert make_serving_environment(REQUIREMENTS, tmp_path) == made
    assert len(fills) == 2 * once


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), LaunchError("no index"), OSError(28, "No space left")])
@pytest.mark.usefixtures("fills")
def test_half_of_one_is_never_left(fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(python: Path, *_arguments: object) -> None:
        (python.parent.parent / "lib").mkdir()
        raise fault

    monkeypatch.setattr(serving_environment, "install_packages", fail)
    with pytest.raises((KeyboardInterrupt, LaunchError)):
        make_serving_environment(REQUIREMENTS, tmp_path)
    assert [path.name for path in (tmp_path / "serving").iterdir()] == [".lock"]


def test_one_with_more_will_do(fills: list[str], tmp_path: Path) -> None:
    with_torch = make_serving_environment((*REQUIREMENTS, "torch==2.11.0"), tmp_path)
    fills.clear()
    assert find_serving_environment(REQUIREMENTS, tmp_path) == with_torch
    assert make_serving_environment(REQUIREMENTS, tmp_path) == with_torch
    assert fills == []
    assert find_serving_environment((*REQUIREMENTS, "torch==2.12.0"), tmp_path) is None
    alone = make_serving_environment((*REQUIREMENTS, "tensorrt==11.0"), tmp_path)
    assert alone != with_torch


def test_what_a_killed_process_left_is_swept(fills: list[str], tmp_path: Path) -> None:
    (tmp_path / "serving" / ".new-1").mkdir(parents=True)
    make_serving_environment(REQUIREMENTS, tmp_path)
    assert fills
    assert not (tmp_path / "serving" / ".new-1").exists()


def test_two_that_start_at_once_make_one(fills: list[str], tmp_path: Path) -> None:
    threads = [threading.Thread(target=make_serving_environment, args=(REQUIREMENTS, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fills) == 3  # numpy; --no-deps and nvidia-pytriton


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "serving").touch()
    with pytest.raises(LaunchError) as caught:
        make_serving_environment(REQUIREMENTS, tmp_path)
    assert "XDG_CACHE_HOME" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("python", "numpy", "suits"),
    [("3.11", "1.26.4", True), ("3.12", "1.26.4", True), ("3.12", "2.5.5", False), ("3.13", "2.1.0", False)],
)
def test_where_the_stub_runs(python: str, numpy: str, suits: bool) -> None:
    assert suits_stub(python, numpy) == suits


_USER = """
import os, sys
from pathlib import Path
from moulin.launch.serving_environment import find_serving_environment, mark_used
os.getpid = lambda: 1
mark_used(find_serving_environment(("numpy>=1.26,<2",), Path(sys.argv[1])))
print("used", flush=True)
input()
"""


def test_an_old_one_stays_while_a_server_runs_from_it(fills: list[str], tmp_path: Path) -> None:
    """Also in another container, whose processes are not to be seen here."""
    made = make_serving_environment(REQUIREMENTS, tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _USER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "used\n"
        os.utime(made.folder / "moulin-serving.json", (0, 0))
        make_serving_environment((*REQUIREMENTS, "torch==2.11.0"), tmp_path)
        assert made.folder.exists()
        user.communicate("\n")
    make_serving_environment((*REQUIREMENTS, "torch==2.12.0"), tmp_path)
    assert not made.folder.exists()
    assert fills
