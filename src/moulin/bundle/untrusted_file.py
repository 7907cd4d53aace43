"""Files of a model as untrusted input: regular files only, and one kind of error whatever they hold."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moulin.errors import BundleError, MoulinError, first_line
from moulin.quoting import cut

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


@contextmanager
def errors_of(file: Path, *, passing: type[Exception] = MoulinError) -> Iterator[None]:
    """Turns whatever goes wrong while `file` is read into a BundleError about it. Readers check what they know of; this
    is for the rest. A MoulinError passes, an ImportError, which is about this installation, and one of `passing`."""
    try:
        yield
    except (MoulinError, ImportError, passing):
        raise
    except OSError as error:
        raise BundleError(f"{cut(str(file), 1000)} cannot be read: {cut(error.strerror or str(error), 200)}") from error
    except Exception as error:
        raise BundleError(
            f"{cut(str(file), 1000)} cannot be read: {type(error).__name__}: {cut(first_line(error), 200)}",
            hint="it is damaged, or not what its name says: fetch it again",
        ) from error


def expect_regular(file: Path) -> int:
    """The size of `file` in bytes. Raises BundleError where it is missing or no regular file: a pipe would be waited
    for, and a device has no end. Links are followed."""
    with errors_of(file):
        try:
            found = os.stat(file)  # noqa: PTH116 (Path.stat says less where the path itself is wrong)
        except FileNotFoundError:
            raise BundleError(f"There is no {cut(str(file), 1000)}") from None
        kind = stat.S_IFMT(found.st_mode)
        if kind != stat.S_IFREG:
            raise BundleError(f"{file} cannot be read: expected a file, got {_KINDS.get(kind, 'something else')}")
        return found.st_size
