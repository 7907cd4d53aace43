"""A Python environment of moulin's own, in its cache, in which Triton and its python stub run.

nvidia-pytriton's stub cannot read arrays of numpy 2, and numpy 1.26 has no wheels for Python 3.13 or later. With either
in the running Python, Triton gets a separate environment. It holds packages and the server, but not moulin's code, to
which `tritonserver.py` links; so all installations of moulin that need the same packages share one.

    cache/serving/py3.12-<hash of the requirements>/     a virtual environment
    cache/serving/py3.12-<hash>/moulin-serving.json      its description; written last
    cache/serving/.new-<random>/                         an environment under construction
    cache/serving/.lock                                  held by the process that makes one
    cache/serving/py3.12-<hash>/.used                    held by the processes whose servers run from it
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moulin.errors import LaunchError
from moulin.launch.file_lock import FileLock, owner_is_gone
from moulin.launch.interpreters import (
    Interpreter,
    download_interpreter,
    find_interpreter,
    find_uv,
    minor_of,
    preferred_versions,
)
from moulin.launch.pip import install_packages, run_python
from moulin.launch.serving_requirements import TRITON_REQUIREMENT

NEEDED_MIB = 1024
"""Disk space for an environment with ONNX Runtime (about 500 MiB) and pip's temporary files."""

_FACTS = "moulin-serving.json"
_USED = ".used"
_held: dict[Path, FileLock] = {}
"""Environments that this process uses, each with its lock."""

_KEPT_SEC = 30 * 86400.0
_WAIT_SEC = 0.2
_CHECK = (
    "import importlib, importlib.metadata, json, sys\n"
    "for name in sys.argv[1:]: importlib.import_module(name)\n"
    "print(json.dumps({name: importlib.metadata.version(name) for name in ('numpy', 'nvidia-pytriton')}))\n"
)
_MODULES = ("numpy", "onnx", "onnxruntime", "kaldi_native_fbank")
"""Folders of site-packages without which an environment is incomplete."""


@dataclass(frozen=True, slots=True)
class ServingEnvironment:
    """A complete environment."""

    folder: Path
    interpreter: Interpreter
    numpy: str
    pytriton: str

    @property
    def packages(self) -> Path:
        """site-packages."""
        return _packages(self.folder, self.interpreter.minor)

    @property
    def tritonserver(self) -> Path:
        """nvidia-pytriton's folder with the server."""
        return self.packages / "pytriton" / "tritonserver"


def find_serving_environment(requirements: Sequence[str], cache: Path) -> ServingEnvironment | None:
    """A complete environment with these requirements, preferably no others, or None. Starts no process."""
    exact = [_folder(cache, minor, requirements) for minor in preferred_versions()]
    with_more = [folder for folder in sorted(_root(cache).glob("py3.*")) if set(requirements) < _requirements(folder)]
    found = map(_read, (*exact, *with_more))
    return next((environment for environment in found if environment is not None), None)


def make_serving_environment(
    requirements: Sequence[str], cache: Path, say: Callable[[str], None] = lambda _line: None
) -> ServingEnvironment:
    """An environment with these requirements: found, or made with a Python of this machine or one installed by `uv`.

    It is made under another name and renamed when complete, by one process at a time; others wait for it. `say`
    receives lines about the progress. Raises LaunchError where none can be made.
    """
    root = _root(cache)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / ".lock", say):
            found = find_serving_environment(requirements, cache)
            return found if found is not None else _make(requirements, cache, say)
    except OSError as error:
        raise LaunchError(
            f"Expected to make an environment for Triton in {root}, got: {error.strerror or error}",
            hint=f"set XDG_CACHE_HOME to a folder that you can write, with {NEEDED_MIB} MiB free",
        ) from error


def interpreter_to_use(cache: Path) -> Interpreter | Path:
    """The Python for a new environment, or the `uv` that would install one. Raises LaunchError for neither."""
    try:
        return find_interpreter(_managed(cache))
    except LaunchError:
        uv = find_uv()
        if uv is None:
            raise
        return uv


def _make(requirements: Sequence[str], cache: Path, say: Callable[[str], None]) -> ServingEnvironment:
    root = _root(cache)
    _sweep(root)
    source = interpreter_to_use(cache)
    interpreter = source if isinstance(source, Interpreter) else download_interpreter(source, _managed(cache), say)
    folder = _folder(cache, interpreter.minor, requirements)
    say(
        f"Making an environment for Triton, which needs numpy 1: Python {interpreter.version}, in {folder}. "
        "This is done once"
    )
    new = root / f".new-{secrets.token_hex(8)}"
    try:
        _fill(new, interpreter, requirements, say)
        _replace(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    made = _read(folder)
    if made is None:
        raise LaunchError(f"Expected a complete environment in {folder}, got one that has just been changed")
    say("The environment for Triton is ready")
    return made


def _fill(new: Path, interpreter: Interpreter, requirements: Sequence[str], say: Callable[[str], None]) -> None:
    # Without pip: Debian's Python lacks ensurepip without another package, and the running Python's pip suffices.
    run_python(interpreter.executable, ["-I", "-m", "venv", "--without-pip", str(new)], what="a virtual environment")
    python = new / "bin" / "python3"
    install_packages(python, requirements, say)
    install_packages(python, ["--no-deps", TRITON_REQUIREMENT], say)
    answer = run_python(python, ["-I", "-c", _CHECK, *_MODULES, "soundfile"], what="the packages for Triton")
    versions = json.loads(answer.splitlines()[-1])
    facts = {
        "executable": str(interpreter.executable),
        "python": interpreter.version,
        "libpython": str(interpreter.libpython),
        "numpy": versions["numpy"],
        "pytriton": versions["nvidia-pytriton"],
        "requirements": list(requirements),
    }
    (new / _FACTS).write_text(json.dumps(facts, indent=1))


def _requirements(folder: Path) -> set[str]:
    """The requirements that the environment in `folder` was made for; empty if unknown, or for another Triton."""
    try:
        facts = json.loads((folder / _FACTS).read_text())
        of_this_triton = facts["pytriton"] == TRITON_REQUIREMENT.partition("==")[2]
        return set(facts["requirements"]) if of_this_triton else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _read(folder: Path) -> ServingEnvironment | None:
    """The environment in `folder`; None where any part of it is missing, its Python included."""
    try:
        facts = json.loads((folder / _FACTS).read_text())
        interpreter = Interpreter(Path(facts["executable"]), facts["python"], Path(facts["libpython"]))
        environment = ServingEnvironment(folder, interpreter, facts["numpy"], facts["pytriton"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    needed = (
        interpreter.executable,
        interpreter.libpython,
        environment.tritonserver / "bin" / "tritonserver",
        *(environment.packages / module for module in _MODULES),
    )
    return environment if all(path.exists() for path in needed) else None


def _replace(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`, in place of an incomplete environment there (a complete one would have been used)."""
    if folder.exists():
        old = folder.with_name(f".old-{secrets.token_hex(8)}")
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    new.rename(folder)


def _sweep(root: Path) -> None:
    """Remove the remains of interrupted processes, and environments that no server was started from for a month.

    To be called with the lock held, so that no environment is under construction.
    """
    for folder in (*root.glob(".new-*"), *root.glob(".old-*")):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in root.glob("py3.*"):
        with contextlib.suppress(OSError):
            is_old = (folder / _FACTS).stat().st_mtime < time.time() - _KEPT_SEC
            if is_old and (lock := owner_is_gone(folder / _USED)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()


def mark_used(environment: ServingEnvironment) -> None:
    """Record that a server is started from `environment` now, and keep it from being removed while this process lives.

    Other containers and machines that share the cache see the lock, but not the processes."""
    folder = environment.folder
    with contextlib.suppress(OSError):
        os.utime(folder / _FACTS)
    if folder not in _held:
        with contextlib.suppress(OSError):
            _held[folder] = FileLock(folder / _USED, shared=True)


@contextlib.contextmanager
def _lock(file: Path, say: Callable[[str], None]) -> Iterator[None]:
    """A lock that is released at the end of the block or of the process."""
    with file.open("w") as held:
        waiting = False
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    say("Waiting for another process that makes an environment for Triton")
                waiting = True
                time.sleep(_WAIT_SEC)
        yield


def _root(cache: Path) -> Path:
    return cache / "serving"


def _managed(cache: Path) -> Path:
    return _root(cache) / "pythons"


def _folder(cache: Path, minor: str, requirements: Sequence[str]) -> Path:
    key = hashlib.sha256("\0".join([*requirements, TRITON_REQUIREMENT]).encode()).hexdigest()[:12]
    return _root(cache) / f"py{minor_of(minor)}-{key}"


def _packages(folder: Path, minor: str) -> Path:
    return folder / "lib" / f"python{minor}" / "site-packages"
