"""Our operators for ONNX Runtime on a CPU (`operators.c`), compiled by the machine's C compiler.

The library is kept in moulin's cache folder, one for each processor and version of the source. Where it cannot be made,
or the environment variable MOULIN_OPERATORS is "off", models run without these operators, in forms that ONNX Runtime
has itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from moulin.errors import EngineError, LaunchError, first_line
from moulin.launch.cache import cache_dir
from moulin.processor import c_compiler, this_processor

logger = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("operators.c")
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
_LIMIT_SEC = 60
_VARIABLE = "MOULIN_OPERATORS"
_UNFINISHED = "compile-"


@cache
def operators_library() -> Path | None:
    """The library to register with the options of a session, compiled if need be; None where it cannot be or is not
    wanted, which the log says once."""
    if os.environ.get(_VARIABLE, "").lower() == "off":
        logger.info("Encoders run without moulin's own operators, as %s says", _VARIABLE)
        return None
    try:
        library = compiled_operators(cache_dir() / "operators")
    except (EngineError, LaunchError) as error:
        logger.info("Encoders run slower, without moulin's own operators: %s", error)
        return None
    return library


def compiled_operators(folder: Path) -> Path:
    """The library in `folder`, compiled if it is not there or damaged. Raises EngineError with what is missing, and
    where other users may write: what is loaded runs as this one."""
    library = folder / f"{_version()}.so"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        _check_only_ours_to_write(folder)
        if library.is_file():
            _check_only_ours_to_write(library)
        if not _is_whole(library):
            _compile(library)
        _load(library)
    except OSError as error:
        raise EngineError(first_line(error)) from error
    return library


def _check_only_ours_to_write(path: Path) -> None:
    found = path.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(
            f"Expected {path} to belong to this user and nobody else to write it",
            hint=f"chmod go-w {path}, or delete it",
        )


def _compile(library: Path) -> None:
    if (compiler := c_compiler()) is None:
        raise EngineError("no C compiler was found", hint="install gcc")
    _remove_unfinished(library.parent)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=_UNFINISHED) as folder:
        made = Path(folder) / library.name
        _run([*compiler, *_FLAGS, str(_SOURCE), "-o", str(made)])
        made.chmod(0o644)
        with made.open("r+b") as file:
            file.write(_digest(file.read()))
        _load(made)
        made.replace(library)  # whole or not at all: other processes may look for it


def _run(command: list[str]) -> None:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # a compiler has processes of its own, which are to end with it
    ) as process:
        try:
            _, errors = process.communicate(timeout=_LIMIT_SEC)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{command[0]} took more than {_LIMIT_SEC} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        said = errors.strip().partition("\n")[0] or f"status {process.returncode}"
        raise EngineError(f"{command[0]} failed: {said}")


def _remove_unfinished(folder: Path) -> None:
    """What processes left that were killed while they compiled."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 10 * _LIMIT_SEC:
                shutil.rmtree(left)


def _load(library: Path) -> None:
    """Raises OSError in a folder from which nothing may be run, and where the compiler made something else."""
    if not hasattr(ctypes.CDLL(str(library)), "RegisterCustomOps"):
        raise OSError(f"{library} has not been compiled from {_SOURCE.name}")


def _is_whole(library: Path) -> bool:
    """Whether `library` ends with the digest of what is before it: loading a file that was cut short, as by a loss of
    power, ends the process."""
    if not library.is_file():
        return False
    content = library.read_bytes()
    size = hashlib.sha256().digest_size
    return _digest(content[:-size]) == content[-size:]


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _version() -> str:
    processor = this_processor()
    made_of = [
        _SOURCE.read_text(encoding="utf-8"),
        *_FLAGS,
        platform.machine(),
        processor.name,
        *sorted(processor.flags),
    ]
    return hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:20]
