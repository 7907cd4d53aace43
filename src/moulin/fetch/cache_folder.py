"""Folders of the cache, which are either complete or absent."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A lock under which one process at a time fills `folder`; others wait. Its parents are created."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def partial_folder(folder: Path) -> Path:
    """The folder in which `folder` is prepared; after an interruption the next attempt continues in it."""
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    return partial


def publish(partial: Path, folder: Path) -> None:
    """Rename `partial` to `folder`, atomically."""
    partial.rename(folder)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
