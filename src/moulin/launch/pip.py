"""pip, and other Pythons, as processes that end with the one that started them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from moulin.errors import LaunchError
from moulin.launch.interpreters import find_uv

_SHOWN = re.compile(r"^\s*(Downloading \S+ \(.*\)|Installing collected packages.*|WARNING: Retrying.*)$")
_MISPLACED = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON")
"""Variables that would make pip use another environment than the given one."""
_KEPT_LINES = 40
_FULL = "No space left on device"


def install_packages(python: Path, arguments: Sequence[str], say: Callable[[str], None]) -> None:
    """`pip install` into the environment of `python`, with the user's own settings of pip (index, proxy, constraints).

    Uses the running Python's pip, or uv where it has none. `say` receives pip's lines about downloads. Raises
    LaunchError.
    """
    _copy_settings(python)
    command = [*_installer(python), *arguments]
    code, lines = _run(command, _environ(), lambda line: say(line.strip()) if _SHOWN.match(line) else None)
    if code != 0:
        raise LaunchError(
            f"Expected to install {' '.join(arguments)} for Triton, got: {_reason(lines, code)}", hint=_hint(lines)
        )


def run_python(python: Path, arguments: Sequence[str], *, what: str) -> str:
    """Run `python` to make `what`; returns its output. Raises LaunchError with its last line where it fails."""
    code, lines = _run([str(python), *arguments], _environ(), lambda _line: None)
    if code != 0:
        raise LaunchError(f"Expected {python} to make {what}, got: {_reason(lines, code)}", hint=_hint(lines))
    return "\n".join(lines)


def _installer(python: Path) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--no-color"]
        return [sys.executable, "-m", "pip", "--python", str(python), "install", *options]
    uv = find_uv()
    if uv is None:
        raise LaunchError(
            "Expected pip or uv, to install the packages for Triton, got neither in this Python",
            hint="python3 -m ensurepip, or install uv",
        )
    return [str(uv), "pip", "install", "--no-progress", "--python", str(python)]


def _copy_settings(python: Path) -> None:
    """Copy pip.conf from the running environment: pip reads only the one in the environment that it installs into."""
    settings = Path(sys.prefix, "pip.conf")
    if settings.is_file():
        shutil.copyfile(settings, python.parent.parent / "pip.conf")


def _environ() -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name not in _MISPLACED}
    return environ | {"PIP_USER": "0", "PYTHONUNBUFFERED": "1"}


def _run(command: Sequence[str], environ: dict[str, str], on_line: Callable[[str], None]) -> tuple[int, list[str]]:
    """The exit code and the last lines of `command`; on an interruption the process and its children are ended."""
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("parent_death.py")), str(os.getpid())]
    process = subprocess.Popen(
        [*launcher, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        with process.stdout as output:
            for raw in output:
                line = raw.decode(errors="replace").rstrip()
                lines.append(line)
                on_line(line)
        return process.wait(), list(lines)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _reason(lines: Sequence[str], code: int) -> str:
    told = [line.strip() for line in lines if line.strip()]
    errors = [line for line in told if line.lower().startswith("error")]
    return (errors or told or [f"exit code {code}"])[-1].removeprefix("ERROR: ")


def _hint(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    if _FULL in text or "Disk quota" in text:
        return "free some space (1 GiB is enough), or set XDG_CACHE_HOME (and TMPDIR) to a disk with space"
    return "pip's own settings apply (index, proxy, constraints): check that it can reach its index, then try again"
