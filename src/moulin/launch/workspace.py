"""Temporary folders in the cache, removed with the process that made them, or later where that was killed.

cache/workspaces/at-<random>/owner      locked while the owner lives
cache/workspaces/at-<random>/<name>     the folder
cache/workspaces/.new-<random>          one that is being made or removed
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moulin.errors import LaunchError
from moulin.launch.cache import cache_dir
from moulin.launch.file_lock import FileLock, owner_is_gone

_OWNER = "owner"
_TRIES = 10
_HALF_MADE_SEC = 86400.0
"""The age at which a folder that never got its final name is removed: making one takes milliseconds."""


@contextmanager
def workspace(name: str) -> Iterator[Path]:
    """A new empty folder called `name`, removed on leaving the context.

    It belongs to this process alone, whatever other containers or machines share the cache. Raises LaunchError where
    the cache cannot be written.
    """
    parent = cache_dir() / "workspaces"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        place, lock = _make(parent, name)
    except OSError as error:
        raise LaunchError(
            f"Expected a cache folder that can be written, got: {parent}: {error.strerror or error}",
            hint="set XDG_CACHE_HOME to a folder that you can write, with some space",
        ) from error
    try:
        yield place / name
    finally:
        _remove(place)
        lock.release()


def discard(folder: Path) -> None:
    """Remove the workspace with `folder`, also one that another thread is removing; of a process that ends at once."""
    place = folder.parent
    for _ in range(_TRIES):
        for name in (place, _removed(place)):
            shutil.rmtree(name, ignore_errors=True)
        if not place.exists() and not _removed(place).exists():
            return


def _make(parent: Path, name: str) -> tuple[Path, FileLock]:
    """A folder that is locked before it has a name under which others would look at it."""
    token = secrets.token_hex(8)
    new, place = parent / f".new-{token}", parent / f"at-{token}"
    new.mkdir()
    try:
        lock = FileLock(new / _OWNER)
        (new / name).mkdir()
        new.rename(place)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return place, lock


def _sweep(parent: Path) -> None:
    """Remove the folders of owners that are gone. One whose lock cannot be judged is left alone."""
    for place in parent.glob("at-*"):
        if (lock := owner_is_gone(place / _OWNER)) is not None:
            _remove(place)
            lock.release()
    for half in parent.glob(".new-*"):
        with contextlib.suppress(OSError):
            if half.stat().st_mtime < time.time() - _HALF_MADE_SEC:
                shutil.rmtree(half, ignore_errors=True)


def _removed(place: Path) -> Path:
    return place.with_name(f".new-{place.name.removeprefix('at-')}")


def _remove(place: Path) -> None:
    """Remove the folder, whose lock we hold: first from the names at which others look."""
    removed = _removed(place)
    with contextlib.suppress(OSError):
        place.rename(removed)
        place = removed
    shutil.rmtree(place, ignore_errors=True)
