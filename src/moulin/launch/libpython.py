"""The location of a Python's shared library. Other Pythons run this file as a script to describe themselves, so it
needs the standard library only.
"""

from __future__ import annotations

import json
import platform
import sys
import sysconfig
from pathlib import Path


def find_libpython() -> Path | None:
    """The shared library of the running Python's version; None where it is not installed."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
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


def _describe() -> dict[str, str | None]:
    """The interpreter outside any virtual environment, its version and its shared library."""
    libpython = find_libpython()
    return {
        "executable": str(Path(getattr(sys, "_base_executable", sys.executable)).resolve()),
        "version": platform.python_version(),
        "implementation": sys.implementation.name,
        "libpython": str(libpython) if libpython else None,
    }


if __name__ == "__main__":
    print(json.dumps(_describe()))
