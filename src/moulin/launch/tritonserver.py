"""Search for a tritonserver and the Python in which its python backend runs moulin's models.

nvidia-pytriton contains the whole server, but its python backend and the stub for each Python version are in different
folders, and the server needs them side by side. They are linked into a folder of moulin's cache; site-packages is never
written to. Three facts about the stub determine this file:

* it is linked with `libpython3.X.so.1.0`, which is not on the loader's path for most Pythons;
* it starts its interpreter in isolated mode: `PYTHONPATH` and `PYTHONHOME` are ignored, and the environment is that of
  the first `python3` on `PATH`, which must have moulin and its models' packages;
* it reads arrays of numpy 1 only, which has no wheels for Python 3.13 or later. Where the running Python does not suit,
  models run in a separate environment (`serving_environment.py`), with links to the running moulin.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moulin.errors import LaunchError
from moulin.launch.cache import cache_dir
from moulin.launch.interpreters import SERVING_VERSIONS
from moulin.launch.libpython import find_libpython
from moulin.launch.serving_environment import (
    ServingEnvironment,
    find_serving_environment,
    make_serving_environment,
    mark_used,
)
from moulin.launch.serving_requirements import serving_requirements

STUB_NAME = "triton_python_backend_stub"
_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")


class NoTriton(LaunchError):
    """There is no tritonserver yet, and the caller did not allow making an environment with one."""


@dataclass(frozen=True, slots=True)
class TritonInstallation:
    """A tritonserver, with everything needed to start it."""

    binary: Path
    backends: Path | None
    """Value of `--backend-directory`; None for the server's default."""
    python_stub: Path | None
    libpython_dir: Path | None
    """Folder with the stub's libpython; None where the loader finds it without."""
    source: Literal["pip", "path"]
    version: str | None
    """Version of nvidia-pytriton ('pip') or of tritonserver ('path'), where known."""
    python_dir: Path | None = None
    """Folder of the `python3` whose environment the stub uses; None for the running one's."""
    serving: ServingEnvironment | None = None
    """moulin's own environment, if the stub does not run in this one."""

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` changed so that the stub finds libpython and the packages of its Python."""
        environ = dict(base)
        python_dir = self.python_dir or Path(sys.executable).parent
        environ["PATH"] = _prepended(str(python_dir), environ.get("PATH", os.defpath))
        if self.serving is not None:
            for folder in _cuda_libraries():
                environ["LD_LIBRARY_PATH"] = _prepended(str(folder), environ.get("LD_LIBRARY_PATH", ""))
        if self.libpython_dir is not None:
            environ["LD_LIBRARY_PATH"] = _prepended(str(self.libpython_dir), environ.get("LD_LIBRARY_PATH", ""))
        return environ


def find_tritonserver(
    binary: Path | None = None,
    *,
    cache: Path | None = None,
    engines: Collection[str] = (),
    make: bool = True,
    say: Callable[[str], None] = lambda _line: None,
) -> TritonInstallation:
    """The tritonserver at `binary`; else nvidia-pytriton's, if this Python suits it; else the one on PATH or in
    /opt/tritonserver; else nvidia-pytriton's in an environment of moulin's own.

    That environment is made if it is missing, for models that run on `engines`, unless `make` is False; `say` receives
    lines about the progress. `cache` is the folder for it and for the links (default: `cache_dir()`).

    Raises:
        LaunchError: there is none and none can be made, or a part of it is missing.
    """
    cache = cache or cache_dir()
    if binary is not None:
        if not (binary.is_file() and os.access(binary, os.X_OK)):
            raise LaunchError(f"Expected the tritonserver executable at {binary}, got no such executable")
        return _from_binary(binary)
    package = _pytriton_dir()
    if package is not None and suits_stub(_python_version(), _numpy_version()):
        return _from_pytriton(package / "tritonserver", cache)
    found = shutil.which("tritonserver") or shutil.which("tritonserver", path="/opt/tritonserver/bin")
    if found is not None:
        return _from_binary(Path(found))
    requirements = serving_requirements(engines)
    serving = find_serving_environment(requirements, cache)
    if serving is None and make:
        serving = make_serving_environment(requirements, cache, say)
    if serving is None:
        raise NoTriton(
            "Expected tritonserver in this Python, on PATH or in an environment of moulin's own, got none yet",
            hint="`moulin serve` makes the environment at its first start",
        )
    mark_used(serving)
    return _from_serving(serving, cache)


def suits_stub(python: str, numpy: str | None) -> bool:
    """Whether nvidia-pytriton's stub runs in Python `python` ('3.X') with this numpy."""
    return python in SERVING_VERSIONS and numpy is not None and numpy.partition(".")[0] == "1"


def stub_python_version(stub: Path) -> str | None:
    """The Python ('3.X') whose libpython a stub is linked with; None where the file does not name one."""
    match = re.search(rb"libpython(3\.\d+)", stub.read_bytes())
    return match[1].decode() if match else None


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _numpy_version() -> str | None:
    try:
        return importlib.metadata.version("numpy")
    except importlib.metadata.PackageNotFoundError:
        return None


def _cuda_libraries() -> list[Path]:
    """Folders of the CUDA libraries that pip installed for the running Python; other Pythons can load them too."""
    spec = importlib.util.find_spec("nvidia")
    roots = (Path(root) for root in (spec.submodule_search_locations or ())) if spec is not None else ()
    return sorted(folder for root in roots for folder in root.glob("*/lib") if folder.is_dir())


def _prepended(entry: str, path_list: str) -> str:
    return os.pathsep.join([entry, *(part for part in path_list.split(os.pathsep) if part and part != entry)])


def _pytriton_dir() -> Path | None:
    # find_spec does not import the package, which takes seconds and changes logging.
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _pytriton_version() -> str | None:
    try:
        return importlib.metadata.version("nvidia-pytriton")
    except importlib.metadata.PackageNotFoundError:
        return None


def _from_pytriton(root: Path, cache: Path) -> TritonInstallation:
    """nvidia-pytriton's server in `root`, with the running Python."""
    python = _python_version()
    _check_files(root, python)
    libpython = find_libpython()
    if libpython is None:
        raise LaunchError(
            f"Expected the shared library libpython{python}.so.1.0, which the python stub is linked with, "
            f"got none in this Python or in the system",
            hint=f"make system, or apt-get install libpython{python}",
        )
    version = _pytriton_version()
    home = _private_home(cache, f"{version or 'unknown'}-py{python}", root, libpython)
    _link(_backend_links(home, root, python, libpython))
    return _installation(home, root, version)


def _from_serving(serving: ServingEnvironment, cache: Path) -> TritonInstallation:
    """The server of moulin's own environment, with the running moulin's code and that environment's packages.

    A virtual environment that consists of links combines them, one for each installation of moulin.
    """
    root, interpreter = serving.tritonserver, serving.interpreter
    _check_files(root, interpreter.minor)
    code = Path(__file__).resolve().parents[1]
    home = _private_home(cache, f"{serving.pytriton}-py{interpreter.minor}", root, interpreter.libpython, code)
    python = home / "python"
    packages = python / "lib" / f"python{interpreter.minor}" / "site-packages"
    links = _backend_links(home, root, interpreter.minor, interpreter.libpython)
    _link(links | {python / "bin" / "python3": interpreter.executable, packages / "moulin": code})
    try:
        _write(python / "pyvenv.cfg", f"home = {interpreter.executable.parent}\ninclude-system-site-packages = false\n")
        _write(packages / "serving.pth", f"{serving.packages}\n")
    except OSError as error:
        raise _unwritable(error) from error
    installation = _installation(home, root, serving.pytriton)
    return dataclasses.replace(installation, python_dir=python / "bin", serving=serving)


def _check_files(root: Path, python: str) -> None:
    """Check that nvidia-pytriton's folder `root` has a server, a python backend and the stub for Python `python`."""
    stub = root / "python_backend_stubs" / python / STUB_NAME
    backend = root / "backends" / "python"
    for path in (root / "bin" / "tritonserver", *(backend / name for name in _BACKEND_FILES)):
        if not path.is_file():
            raise LaunchError(
                f"Expected {path} from nvidia-pytriton, got no such file",
                hint="pip install --force-reinstall nvidia-pytriton==0.7.0",
            )
    if not stub.is_file():
        have = sorted(folder.name for folder in stub.parent.parent.glob("3.*"))
        raise LaunchError(
            f"Expected nvidia-pytriton's python stub for Python {python}, "
            f"got stubs for {', '.join(have) or 'no Python at all'}",
            hint="run moulin with Python 3.11 or 3.12",
        )


def _backend_links(home: Path, root: Path, python: str, libpython: Path) -> dict[Path, Path]:
    backend = root / "backends" / "python"
    links = {home / "backends" / "python" / name: backend / name for name in _BACKEND_FILES}
    links[home / "backends" / "python" / STUB_NAME] = root / "python_backend_stubs" / python / STUB_NAME
    # A separate folder, because the library's own may contain another libstdc++ than Triton's (conda).
    return links | {home / "lib" / libpython.name: libpython}


def _installation(home: Path, root: Path, version: str | None) -> TritonInstallation:
    return TritonInstallation(
        binary=root / "bin" / "tritonserver",
        backends=home / "backends",
        python_stub=home / "backends" / "python" / STUB_NAME,
        libpython_dir=home / "lib",
        source="pip",
        version=version,
    )


def _private_home(cache: Path, name: str, *parts: Path) -> Path:
    # Each installation has its own folder, so that two virtual environments never change each other's links.
    key = hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:12]
    return cache / "triton" / f"{name}-{key}"


def _link(links: Mapping[Path, Path]) -> None:
    try:
        for link, target in links.items():
            _point(link, target)
    except OSError as error:
        raise _unwritable(error) from error


def _unwritable(error: OSError) -> LaunchError:
    return LaunchError(
        f"Expected a writable cache folder for the python backend, got {error}",
        hint="set XDG_CACHE_HOME to a folder that you can write, with some space",
    )


def _write(file: Path, text: str) -> None:
    """Write `text` to `file` atomically, since a server may be starting at the same time."""
    if file.is_file() and file.read_text() == text:
        return
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    fresh.write_text(text)
    fresh.replace(file)


def _point(link: Path, target: Path) -> None:
    """Point `link` to `target` atomically, since a server may be starting at the same time."""
    if link.is_symlink() and link.readlink() == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link, ignore_errors=True)
    fresh = link.with_name(f".{link.name}.{secrets.token_hex(8)}")
    fresh.symlink_to(target)
    fresh.replace(link)


def _from_binary(binary: Path) -> TritonInstallation:
    # NVIDIA's layout is /opt/tritonserver/{bin,backends,TRITON_VERSION}.
    root = binary.resolve().parent.parent
    backends = root / "backends"
    stub = backends / "python" / STUB_NAME
    version_file = root / "TRITON_VERSION"
    if stub.is_file():
        built_for = stub_python_version(stub)
        if built_for is not None and built_for != _python_version():
            raise LaunchError(
                f"Expected Python {built_for}, which the python stub of {binary} is built for, "
                f"got Python {_python_version()}",
                hint=f"install moulin for Python {built_for}",
            )
    return TritonInstallation(
        binary=binary,
        backends=backends if backends.is_dir() else None,
        python_stub=stub if stub.is_file() else None,
        libpython_dir=None,
        source="path",
        version=version_file.read_text().strip() if version_file.is_file() else None,
    )
