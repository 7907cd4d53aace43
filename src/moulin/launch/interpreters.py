"""Search for a Python in which Triton's python stub can run: 3.12 or 3.11 (numpy 1.26 has no wheels for newer ones)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moulin.errors import LaunchError

SERVING_VERSIONS = ("3.12", "3.11")
_PROBE_SEC = 60.0
"""Timeout for a Python to start, generous for a busy machine."""
_INSTALL_HINT = (
    "install one of these, then start again: apt-get install python3.12 libpython3.12 (Debian 12: 3.11), dnf install "
    "python3.12, `uv python install 3.12`, or conda; a Python that was built by pyenv needs --enable-shared"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An installed Python, outside any virtual environment."""

    executable: Path
    version: str
    """For example `3.12.1`."""
    libpython: Path

    @property
    def minor(self) -> str:
        """For example `3.12`."""
        return minor_of(self.version)


def minor_of(version: str) -> str:
    """`3.12` of `3.12.1`."""
    return ".".join(version.split(".")[:2])


def preferred_versions() -> tuple[str, ...]:
    """The serving versions, beginning with the running Python's if it is one: that one certainly works."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return tuple(sorted(SERVING_VERSIONS, key=lambda version: version != own))


def find_interpreter(managed: Path, environ: Mapping[str, str] = os.environ) -> Interpreter:
    """The first usable Python on PATH, in the usual places, or below `managed`, where `uv` installs its own.

    Raises LaunchError where there is none, with the reasons against those found.
    """
    reasons: list[str] = []
    tried: set[Path] = set()
    for candidate in _candidates(managed, environ):
        if candidate in tried or not (candidate.is_file() and os.access(candidate, os.X_OK)):
            continue
        tried.add(candidate)
        found = _probe(candidate)
        if isinstance(found, Interpreter):
            return found
        if found is not None:
            reasons.append(found)
    raise LaunchError(
        f"Expected Python {' or '.join(SERVING_VERSIONS)} with its shared library, in which Triton's python backend "
        f"runs, got {'; '.join(dict.fromkeys(reasons)) or 'none on this machine'}",
        hint=_INSTALL_HINT,
    )


def find_uv(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The program `uv`: beside this Python, or on PATH."""
    folders = [Path(sys.executable).parent, *_path_folders(environ)]
    return next((file for folder in folders if os.access(file := folder / "uv", os.X_OK) and file.is_file()), None)


def download_interpreter(uv: Path, managed: Path, say: Callable[[str], None]) -> Interpreter:
    """Install a Python below `managed` with `uv`. Raises LaunchError where that fails."""
    version = SERVING_VERSIONS[0]
    say(f"Downloading Python {version} with uv, into {managed}")
    done = subprocess.run(
        [str(uv), "python", "install", "--no-progress", version],
        env={**os.environ, "UV_PYTHON_INSTALL_DIR": str(managed)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise LaunchError(
            f"Expected uv to install Python {version}, in which Triton's python backend runs, "
            f"got: {'; '.join(lines[-4:]) or f'exit code {done.returncode}'}",
            hint=_INSTALL_HINT,
        )
    return find_interpreter(managed)


def _candidates(managed: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    if f"{sys.version_info.major}.{sys.version_info.minor}" in SERVING_VERSIONS:
        yield Path(sys.executable)
    path = _path_folders(environ)
    home = Path(environ.get("HOME") or Path.home())
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    uv = home / ".local" / "share" / "uv" / "python"
    for version in preferred_versions():
        name = f"python{version}"
        yield from (folder / name for folder in path)
        yield from (Path(folder, "bin", name) for folder in ("/usr", "/usr/local", "/opt/homebrew"))
        for root, pattern in ((managed, f"cpython-{version}.*"), (pyenv, f"{version}.*"), (uv, f"cpython-{version}.*")):
            yield from sorted(root.glob(f"{pattern}/bin/{name}"), reverse=True)
    # In conda and other virtual environments Python may have no versioned name.
    yield from (folder / name for name in ("python3", "python") for folder in path)


def _path_folders(environ: Mapping[str, str]) -> list[Path]:
    return [Path(folder) for folder in environ.get("PATH", os.defpath).split(os.pathsep) if folder]


def _probe(candidate: Path) -> Interpreter | str | None:
    """The Python behind `candidate`, or the reason why it cannot be used, or None for other versions and programs."""
    script = Path(__file__).with_name("libpython.py")
    try:
        answer = subprocess.run(
            [str(candidate), "-I", str(script)], capture_output=True, text=True, timeout=_PROBE_SEC, check=False
        )
        facts = json.loads(answer.stdout)
        executable, version, implementation = Path(facts["executable"]), facts["version"], facts["implementation"]
        libpython = facts["libpython"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
        return None  # pyenv's shims for unselected versions, or a Python too old for the script
    if implementation != "cpython" or minor_of(version) not in SERVING_VERSIONS:
        return None
    if libpython is None:
        return (
            f"{executable} without libpython{minor_of(version)}.so.1.0 (apt-get install libpython{minor_of(version)})"
        )
    return Interpreter(executable, version, Path(libpython))
