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
    """The library in `folder`, compiled if it is not there. Raises EngineError with what is missing."""
    library = folder / f"{_version()}.so"
    try:
        if not library.is_file():
            _compile(library)
        ctypes.CDLL(str(library))  # damaged, or in a folder from which nothing may be run
    except subprocess.CalledProcessError as error:
        raise EngineError(f"{error.cmd[0]} failed: {error.stderr.strip().partition(chr(10))[0]}") from error
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
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LIMIT_SEC)
        made.replace(library)  # whole or not at all: other processes may look for it


def _version() -> str:
    processor = this_processor()
    made_of = [_SOURCE.read_text(encoding="utf-8"), *_FLAGS, processor.name, *sorted(processor.flags)]
    return hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:20]
