"""The folder of compiled kernels, which all processes of this machine share, and the marks of what is complete in it.

A folder for each version of our kernels, of Triton-lang and compute capability is in moulin's cache. Whoever finds that
a model's kernels are not complete compiles them under a lock, so that several processes that are started together
compile them once; the others wait, and then load them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import triton

from moulin.gpu.kernel_compiler import compile_kernels
from moulin.launch.cache import cache_dir
from moulin.launch.file_lock import FileLock

logger = logging.getLogger(__name__)

_VARIABLE = "TRITON_CACHE_DIR"
_LOOK_SEC = 0.2


@dataclass(frozen=True)
class KernelSet:
    """The kernels of a model, for recordings or streams, in one precision."""

    name: str
    """The model, for the log."""
    sizes: object
    """All that decides which kernels they are: its `repr` tells sets apart."""
    run: Callable[[], None]
    """A pass that launches all of them, for `compile_kernels`."""

    @property
    def mark(self) -> str:
        """The name of the file that says that all of them are there."""
        return f"{hashlib.sha256(repr(self.sizes).encode()).hexdigest()[:20]}.complete"


def use_kernel_folder(capability: int) -> Path:
    """Let Triton-lang keep its kernels in our folder for `capability` from here on, or in the one that its own variable
    names. Raises OSError where it cannot be made."""
    given = os.environ.get(_VARIABLE)
    if given is not None and given != _chosen.get(_VARIABLE):
        folder = Path(given)
    else:
        folder = cache_dir() / "kernels" / _version(capability)
    folder.mkdir(parents=True, exist_ok=True)
    if folder != Path(given or ""):
        # Triton-lang reads it whenever it looks for a kernel, and has had it for longer than a setting in Python.
        os.environ[_VARIABLE] = _chosen[_VARIABLE] = str(folder)
    return folder


def complete_kernels(kernels: KernelSet, capability: int, *, threads: int | None = None) -> int:
    """Compile `kernels` for cards of the compute `capability` (90 for 9.0) where that has not been done, by `threads`.

    Returns their number; 0 where they were there, or another process has compiled them meanwhile. Raises OSError where
    the folder cannot be made, and RuntimeError where a kernel cannot be compiled.
    """
    folder = use_kernel_folder(capability)
    mark = folder / f"{_version(capability)}-{kernels.mark}"
    if mark.is_file():
        return 0
    lock = _lock(folder / "lock", kernels.name)
    try:
        if mark.is_file():
            return 0
        began = time.monotonic()
        logger.info("Compiling the GPU kernels of %s for compute capability %.1f", kernels.name, capability / 10)
        count = compile_kernels(kernels.run, capability, threads=threads or len(os.sched_getaffinity(0)))
        mark.touch()
        logger.info("The %d GPU kernels of %s are there after %.1f s", count, kernels.name, time.monotonic() - began)
        return count
    finally:
        if lock is not None:
            lock.release()


_chosen: dict[str, str] = {}
"""The variable's value that is ours."""


def _lock(file: Path, name: str) -> FileLock | None:
    """The lock, once nobody else has it; None where the folder cannot be written."""
    waits = False
    while True:
        try:
            return FileLock(file)
        except BlockingIOError:
            if not waits:
                logger.info("Another process compiles GPU kernels; %s waits for it", name)
            waits = True
            time.sleep(_LOOK_SEC)
        except OSError:
            return None


def _version(capability: int) -> str:
    return f"{_sources()}-triton{triton.__version__}-sm{capability}"


@cache
def _sources() -> str:
    """The version of our kernels: a digest of the sources that decide about them."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
