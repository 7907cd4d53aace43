"""Temporary folders in the cache, removed with the process that made them, or later where that was killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moulin.launch.cache import cache_dir


@contextmanager
def workspace(name: str) -> Iterator[Path]:
    """A new empty folder called `name`, removed on leaving the context."""
    parent = cache_dir() / "workspaces"
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        owner = folder.name.partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)
    folder = parent / f"{os.getpid()}-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
