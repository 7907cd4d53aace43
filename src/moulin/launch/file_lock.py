"""An owner's lock on a file: whoever can take it knows that the owner is gone.

Process ids say nothing across PID namespaces (in two containers both owners are process 1) or across machines that
share a folder by NFS. The kernel releases a lock with the process that holds it, and other containers and, over NFS,
other machines see it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
from pathlib import Path
from typing import IO

_BUSY = (errno.EAGAIN, errno.EACCES)


class FileLock:
    """A lock on `file`, which is created; held until `release` or the end of this process.

    Child processes do not inherit it. Where the file system has no locks `is_held` is False.
    """

    def __init__(self, file: Path, *, shared: bool = False) -> None:
        """Take the lock, which nobody else may hold, unless both are `shared`. Raises BlockingIOError, OSError."""
        self._file: IO[bytes] | None = file.open("ab")
        self.is_held = False
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            self.is_held = True
        except OSError as error:
            if error.errno in _BUSY:
                self.release()
                raise BlockingIOError(error.errno, "locked by another process", str(file)) from error

    def release(self) -> None:
        """Give the lock up. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self.is_held = False


def owner_is_gone(file: Path) -> FileLock | None:
    """The lock on `file` where nobody holds it any more; None where its owner lives, or that cannot be known."""
    with contextlib.suppress(OSError):
        if file.is_file():
            lock = FileLock(file)
            if lock.is_held:
                return lock
            lock.release()
    return None
