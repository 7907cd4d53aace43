"""Finds a tritonserver and makes it fit the running Python.

nvidia-pytriton carries the whole server, but its python backend and the stub for each Python version lie in
different folders, and the server wants them side by side. They are brought together as symbolic links in a
folder of moulin's cache; site-packages is never written to. Two facts about the stub shape this file:

* it is linked with `libpython3.X.so.1.0`, which is not on the loader's path for most Pythons;
* it starts its interpreter in isolated mode: `PYTHONPATH` and `PYTHONHOME` are ignored, and the environment is
  the one of the first `python3` on `PATH`. That one must be ours, or the models cannot import moulin.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moulin.errors import LaunchError
from moulin.launch.cache import cache_dir

STUB_NAME = "triton_python_backend_stub"
_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")
_PIP_HINT = "pip install 'moulin[serve]'"


@dataclass(frozen=True, slots=True)
class TritonInstallation:
    """A tritonserver that can be started."""

    binary: Path
    backends: Path | None
    """Value of `--backend-directory`; None leaves the server its own default."""
    python_stub: Path | None
    libpython_dir: Path | None
    """Folder with the stub's libpython; None where the loader finds it by itself."""
    source: Literal["pip", "path"]
    version: str | None
    """Version of nvidia-pytriton ('pip') or of tritonserver ('path'), where known."""

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` changed so that the stub finds libpython and this Python's packages."""
        environ = dict(base)
        interpreter_dir = str(Path(sys.executable).parent)
        environ["PATH"] = _prepended(interpreter_dir, environ.get("PATH", os.defpath))
        if self.libpython_dir is not None:
            environ["LD_LIBRARY_PATH"] = _prepended(str(self.libpython_dir), environ.get("LD_LIBRARY_PATH", ""))
        return environ


def find_tritonserver(binary: Path | None = None, *, cache: Path | None = None) -> TritonInstallation:
    """The tritonserver at `binary`, else nvidia-pytriton's, else the one on PATH or in /opt/tritonserver.

    `cache` is where the private backend folder is built (default: `cache_dir()`).

    Raises:
        LaunchError: none is there, or a piece of it is missing.
    """
    if binary is not None:
        if not (binary.is_file() and os.access(binary, os.X_OK)):
            raise LaunchError(f"Expected the tritonserver executable at {binary}, got no such executable")
        return _from_binary(binary)
    package = _pytriton_dir()
    if package is not None:
        return _from_pytriton(package / "tritonserver", cache or cache_dir())
    found = shutil.which("tritonserver") or shutil.which("tritonserver", path="/opt/tritonserver/bin")
    if found is None:
        raise LaunchError(
            "Expected tritonserver from nvidia-pytriton or on PATH, got neither",
            hint=f"{_PIP_HINT}, or run in NVIDIA's container nvcr.io/nvidia/tritonserver",
        )
    return _from_binary(Path(found))


def find_libpython() -> Path | None:
    """The shared library of the running Python's version; None where it is not installed."""
    name = f"libpython{_python_version()}.so.1.0"
    lib_dir = Path(str(sysconfig.get_config_var("LIBDIR") or "/usr/lib"))
    multiarch = str(sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu")
    folders = (
        Path(sys.base_prefix) / "lib",
        lib_dir,
        lib_dir / multiarch,
        Path("/usr/lib") / multiarch,
        Path("/usr/lib64"),
        Path("/usr/local/lib"),
    )
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def stub_python_version(stub: Path) -> str | None:
    """The Python ('3.X') whose libpython a stub is linked with; None where the file does not tell."""
    match = re.search(rb"libpython(3\.\d+)", stub.read_bytes())
    return match[1].decode() if match else None


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _prepended(entry: str, path_list: str) -> str:
    return os.pathsep.join([entry, *(part for part in path_list.split(os.pathsep) if part and part != entry)])


def _pytriton_dir() -> Path | None:
    # find_spec does not run the package: importing pytriton takes seconds and changes logging.
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
    python = _python_version()
    binary = root / "bin" / "tritonserver"
    stub = root / "python_backend_stubs" / python / STUB_NAME
    backend = root / "backends" / "python"
    for path in (binary, *(backend / name for name in _BACKEND_FILES)):
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
    libpython = find_libpython()
    if libpython is None:
        raise LaunchError(
            f"Expected the shared library libpython{python}.so.1.0, which the python stub is linked with, "
            f"got none in this Python or in the system",
            hint=f"make system, or apt-get install libpython{python}",
        )
    version = _pytriton_version()
    home = _private_home(cache, root, version, libpython)
    links = {home / "backends" / "python" / name: backend / name for name in _BACKEND_FILES}
    links[home / "backends" / "python" / STUB_NAME] = stub
    # A folder of its own: the library's real folder may hold a libstdc++ that is not Triton's (conda).
    links[home / "lib" / libpython.name] = libpython
    try:
        for link, target in links.items():
            _point(link, target)
    except OSError as error:
        raise LaunchError(
            f"Expected a writable cache folder for the python backend, got {error}",
            hint="set XDG_CACHE_HOME to a folder that you can write",
        ) from error
    return TritonInstallation(
        binary=binary,
        backends=home / "backends",
        python_stub=home / "backends" / "python" / STUB_NAME,
        libpython_dir=home / "lib",
        source="pip",
        version=version,
    )


def _private_home(cache: Path, root: Path, version: str | None, libpython: Path) -> Path:
    # Each installation gets a folder of its own, so that two virtual environments never repoint each other's links.
    key = hashlib.sha256(f"{root}\0{libpython}".encode()).hexdigest()[:12]
    return cache / "triton" / f"{version or 'unknown'}-py{_python_version()}-{key}"


def _point(link: Path, target: Path) -> None:
    """Make `link` lead to `target`; a server that starts at the same moment never sees it missing."""
    if link.is_symlink() and link.readlink() == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _from_binary(binary: Path) -> TritonInstallation:
    # NVIDIA's layout: /opt/tritonserver/{bin,backends,TRITON_VERSION}.
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
