"""Byte ranges of a file, and types shared by both forms of PyTorch files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

from moulin.bundle.torch_file.inert import Placeholder
from moulin.bundle.torch_file.stored_tensor import Storage, StorageType

_LONGEST_LINE = 2**20


class FormatError(ValueError):
    """A file in another format than expected. The message completes a sentence that begins with the file's name."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Record:
    """The bytes of one storage in the file. `checksum` is their CRC-32, None where the file has none."""

    begin: int
    size: int
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """The unpickled object of a file, and `record`, which locates a storage by its key and raises FormatError."""

    pickled: object
    record: Callable[[str], Record]
    big_endian: bool = False


class Part:
    """The bytes [begin, end) of `file` as a stream for `pickletools`; a read beyond the end returns the rest."""

    def __init__(self, file: IO[bytes], begin: int, end: int) -> None:
        self._file, self._end = file, end
        file.seek(begin)

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._end - self._file.tell())
        return self._file.read(rest if size < 0 else min(size, rest))

    def readline(self) -> bytes:
        return self._file.readline(min(_LONGEST_LINE, max(0, self._end - self._file.tell())))

    def tell(self) -> int:
        return self._file.tell()


@dataclass(slots=True)
class Storages:
    """Resolves persistent ids to storages, and records the element size with which each key first occurs."""

    item_sizes: dict[str, int] = field(default_factory=dict)

    def __call__(self, persistent_id: object) -> object:
        match persistent_id:
            case ("storage", StorageType() as kind, str() | int() as key, str(), int() as numel, *view) if numel >= 0:
                self.item_sizes.setdefault(str(key), kind.item_size)
                match view:
                    case [] | [None]:
                        return Storage(str(key), kind, numel)
                    case [(_, int() as offset, int() as length)] if offset >= 0 and length >= 0:
                        return Storage(str(key), kind, length, offset)
        return Placeholder("a persistent object")


def tail_of(names: Mapping[str, object] | list[str], most: int = 6) -> str:
    """The first `most` of `names`, for an error message."""
    return ", ".join(list(names)[:most]) or "nothing"
