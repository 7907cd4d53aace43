"""Unpacking of untrusted archives: nothing is written outside the folder, and no more than a limit."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, cast

from moulin.fetch.errors import FetchError, size_text
from moulin.fetch.progress import Progress, silent
from moulin.fetch.published_path import is_plain
from moulin.quoting import cut, quoted

# Twice the size of a transducer of a billion parameters in fp32.
MAX_UNPACKED_BYTES = 8_000_000_000
MAX_MEMBERS = 10_000
_PIECE = 1 << 20
_LONGEST_READ = 1 << 24


def unpack(
    archive: Path, into: Path, *, name: str, max_bytes: int = MAX_UNPACKED_BYTES, progress: Progress = silent
) -> None:
    """Unpack the tar `archive` (plain, gzip, bzip2 or xz), called `name` in messages, into the empty folder `into`.

    Raises FetchError for damage, absolute names, `..`, devices, links that lead out, duplicate names and more than
    `max_bytes`; files written until then are left to the caller.
    """
    total = 0
    try:
        with (
            _decompressed(archive) as content,
            tarfile.open(fileobj=cast(IO[bytes], _Bounded(content)), mode="r:") as tar,
        ):
            for number, member in enumerate(tar):
                where = into / _safe(member, name)
                total += member.size
                if total > max_bytes or number >= MAX_MEMBERS:
                    raise _too_much(name, max_bytes)
                _write(tar, member, where, into)
                progress(f"unpacking {name}", total, None)
            _read_on(tar, max_bytes, name)
    except FileExistsError as error:
        raise FetchError(f"{name} has {Path(error.filename).name} twice", hint="it is not a regular archive") from None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise _damaged(name, error) from None
    except (
        tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, LookupError, zlib.error, lzma.LZMAError
    ) as error:  # fmt: skip
        raise _damaged(name, error) from None
    except OSError as error:
        if error.errno not in (None, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL):  # the disk, not the data
            raise
        raise _damaged(name, error) from None


def _decompressed(archive: Path) -> IO[bytes]:
    """The content of `archive`, decompressed as its first bytes say."""
    with archive.open("rb") as opened:
        start = opened.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(archive))
    if start.startswith(b"BZh"):
        return bz2.open(archive)
    if start.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return lzma.open(archive)
    return archive.open("rb")


class _Bounded:
    """A file for tarfile that refuses long reads: tarfile reads headers as a whole, and an archive of a few kilobytes
    may have one of gigabytes."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self.seek, self.tell, self.close = content.seek, content.tell, content.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise tarfile.ReadError("it has a header that is too long")
        return self._content.read(size)


def _read_on(tar: tarfile.TarFile, max_bytes: int, name: str) -> None:
    """Read to the end of the data, to verify its checksum: tarfile takes damage between two members for the end."""
    assert tar.fileobj is not None
    for _ in range(max_bytes // _PIECE + 1):
        if not tar.fileobj.read(_PIECE):
            return
    raise _too_much(name, max_bytes)


def _too_much(name: str, max_bytes: int) -> FetchError:
    return FetchError(
        f"{name} unpacks to more than {size_text(max_bytes)} or {MAX_MEMBERS:,} files",
        hint="a speech recognition model is smaller; unpack it by hand if you trust it",
    )


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, where: Path, into: Path) -> None:
    if member.isdir():
        where.mkdir(parents=True, exist_ok=True)
        return
    where.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        where.symlink_to(member.linkname)
    elif member.islnk():
        where.hardlink_to(into / member.linkname)
    else:
        content = tar.extractfile(member)
        assert content is not None
        with content, where.open("xb") as file:
            shutil.copyfileobj(content, file, _PIECE)


def _safe(member: tarfile.TarInfo, name: str) -> PurePosixPath:
    """The member's path, checked with its link target to stay inside: a link without `..` can only lead down."""
    for path, what in ((member.name, "a file"), (member.linkname, "a link")):
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise FetchError(
                f"{name} has {what} that leads out of its folder: {quoted(path)}",
                hint="do not trust where it comes from",
            )
        if path.strip("./") and not is_plain(PurePosixPath(path.replace("\0", ""))):
            raise FetchError(f"{name} has {what} with a path that is too long: {quoted(path)}")
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise FetchError(f"{name} has a device: {quoted(member.name)}", hint="do not trust where it comes from")
    return PurePosixPath(member.name)


def _damaged(name: str, error: Exception) -> FetchError:
    return FetchError(
        f"{name} is no tar archive, or damaged: {cut(str(error), 200)}", hint="check the address, and fetch it again"
    )
