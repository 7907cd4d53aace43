"""Folders of the cache that are either complete or not there."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time fills `folder`; the others wait. Its parents are created."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def partial_folder(folder: Path) -> Path:
    """Where what will be `folder` is gathered; it survives an interruption, so that the next try goes on from it."""
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    return partial


def publish(partial: Path, folder: Path) -> None:
    """Make `partial` what is at `folder`, in one step."""
    partial.rename(folder)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
