"""Our operators for ONNX Runtime on a CPU (`operators.c`), compiled by the machine's C compiler.

The library is kept in moulin's cache folder, one for each processor and version of the source. Where it cannot be made,
models run without these operators, in forms that ONNX Runtime has itself.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from moulin.errors import EngineError, first_line
from moulin.launch.cache import cache_dir
from moulin.processor import c_compiler, this_processor

logger = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("operators.c")
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
_LIMIT_SEC = 60


@cache
def operators_library() -> Path | None:
    """The library to register with the options of a session, compiled if need be; None where it cannot be, which the
    log says once."""
    try:
        library = compiled_operators(cache_dir() / "operators")
    except EngineError as error:
        logger.info("Encoders run slower, without moulin's own operators: %s", error)
        return None
    return library


def compiled_operators(folder: Path) -> Path:
    """The library in `folder`, compiled if it is not there or damaged. Raises EngineError with what is missing."""
    library = folder / f"{_version()}.so"
    try:
        if not _is_whole(library):
            _compile(library)
        _load(library)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().partition("\n")[0] or f"status {error.returncode}"
        raise EngineError(f"{error.cmd[0]} failed: {said}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(first_line(error)) from error
    return library


def _compile(library: Path) -> None:
    if (compiler := c_compiler()) is None:
        raise EngineError("no C compiler was found", hint="install gcc")
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="compile-") as folder:
        made = Path(folder) / library.name
        command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, errors="replace", timeout=_LIMIT_SEC)
        with made.open("r+b") as file:
            file.write(_digest(file.read()))
        _load(made)
        made.replace(library)  # whole or not at all: other processes may look for it


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
    made_of = [_SOURCE.read_text(encoding="utf-8"), *_FLAGS, processor.name, *sorted(processor.flags)]
    return hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:20]
