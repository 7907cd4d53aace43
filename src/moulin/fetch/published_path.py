"""Paths of files in archives and on hubs, which others have written: bounded, and inside of their folder."""

from __future__ import annotations

from pathlib import PurePosixPath

MOST_LEVELS = 32
MOST_BYTES = 1000
_MOST_NAME_BYTES = 255


def is_plain(path: PurePosixPath) -> bool:
    """Whether `path` leads down from a folder, by names that every file system takes.

    Folders are made and removed level by level, so that very many would exceed Python's recursion.
    """
    text = str(path)
    return (
        0 < len(path.parts) <= MOST_LEVELS
        and not path.is_absolute()
        and ".." not in path.parts
        and "\0" not in text
        and len(text.encode("utf-8", "surrogatepass")) <= MOST_BYTES
        and all(len(part.encode("utf-8", "surrogatepass")) <= _MOST_NAME_BYTES for part in path.parts)
    )
