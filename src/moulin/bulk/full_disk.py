"""A disk that is full: which folder lacks room, and how much is left there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moulin.errors import OptionsError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """OSErrors of a full disk or a used-up quota within the block, which writes into `folder`, become an OptionsError
    that names it."""
    try:
        yield
    except OSError as error:
        lack = lack_of_room(error, folder)
        if lack is None:
            raise
        hint = "make room and run the command again: it goes on with what is missing"
        raise OptionsError(lack, hint=hint) from error


def lack_of_room(error: BaseException, folder: Path) -> str | None:
    """A sentence about `folder`, into which something was written when `error` came; None where the disk is not full
    nor a quota used up."""
    if not (isinstance(error, OSError) and error.errno in _FULL):
        return None
    free_kib = shutil.disk_usage(folder).free / 1024
    free = f"{free_kib:,.0f} KiB" if free_kib < 10_000 else f"{free_kib / 1024:,.0f} MiB"
    return f"The folder {folder} lacks room: {os.strerror(error.errno)}, {free} free"
