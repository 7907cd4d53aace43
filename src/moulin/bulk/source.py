"""Audio by path or address: what lies elsewhere is copied into a temporary file without a name."""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from moulin.audio.decoded import described
from moulin.bulk.full_disk import lack_of_room
from moulin.errors import AudioError

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://.")
_BY_PYARROW = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")
_COPIED_AT_ONCE = 1 << 20

SILENCE_SEC = 30.0
"""How long a web server may say nothing; it is asked twice."""


def is_address(path: str) -> bool:
    """Whether `path` is an address (`s3://…`, `https://…`) and no file's path."""
    return _ADDRESS.match(path) is not None


@contextmanager
def local_file(path: str) -> Iterator[str]:
    """A path at which the audio can be read within the block. Raises AudioError."""
    if not is_address(path):
        _check_kind(path)
        yield path
        return
    with _copy(path) as copy:
        yield f"/proc/self/fd/{copy.fileno()}"


def _copy(address: str) -> IO[bytes]:
    """What lies at `address`, in a temporary file without a name. Raises AudioError."""
    copy: IO[bytes] | None = None
    try:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
        with _opened(address) as remote:
            shutil.copyfileobj(remote, copy, _COPIED_AT_ONCE)
        copy.flush()
        return copy
    except Exception as error:  # of any of the file systems' libraries
        if copy is not None:
            with suppress(OSError):  # where the disk is full, closing fails as writing did
                copy.close()
        if isinstance(error, AudioError):
            raise
        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # fsspec's, of whatever went wrong with a web server
        reason = lack_of_room(error, Path(tempfile.gettempdir())) or described(error)
        raise AudioError(f"{address} cannot be read: {reason}") from error


def _check_kind(path: str) -> None:
    """Raises AudioError for a pipe or device, on which nobody may ever write or which has no end."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return  # opening it says why
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise AudioError(f"{path} is no regular file")


def _opened(address: str) -> IO[bytes]:
    match = _ADDRESS.match(address)
    assert match is not None
    scheme = match["scheme"].lower()
    if scheme in _BY_PYARROW:
        system, rest = _file_system(scheme, address)
        opened: IO[bytes] = system.open_input_stream(rest)
        return opened
    try:
        import fsspec

        patience = _patience() if scheme in ("http", "https") else {}
    except ModuleNotFoundError as error:
        raise AudioError(
            f"{address} cannot be read: addresses of {scheme}:// need {error.name}", hint="pip install 'fsspec[http]'"
        ) from error
    by_fsspec: IO[bytes] = fsspec.open(address, "rb", **patience).open()
    return by_fsspec


def _patience() -> dict[str, Any]:
    """Options of fsspec's: a server may be slow, for hours, but not silent. By default all is to come in 5 minutes."""
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=SILENCE_SEC, sock_read=SILENCE_SEC)}}


def _file_system(scheme: str, address: str) -> tuple[Any, str]:
    """PyArrow's file system of an address, one for all addresses of a bucket, and the path in it."""
    place, _, rest = address.partition("://")[2].partition("/")
    if scheme == "file":
        return _of_bucket("file:///")[0], f"/{rest}"
    system, bucket = _of_bucket(f"{scheme}://{place}")
    return system, f"{bucket.rstrip('/')}/{rest}"


@lru_cache(maxsize=64)
def _of_bucket(address: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    system, path = FileSystem.from_uri(address)
    return system, path
