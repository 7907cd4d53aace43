"""Parts of a file, and what is common to both forms of PyTorch's files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

from moulin.bundle.torch_file.inert import Placeholder
from moulin.bundle.torch_file.stored_tensor import Storage, StorageType

_LONGEST_LINE = 2**20


class FormatError(ValueError):
    """The file is not what it seems. The message is the end of a sentence that begins with the file's name."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Record:
    """Bytes of the file: a storage. `checksum` is their CRC-32 where the file has one."""

    begin: int
    size: int
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file's pickle holds, and `record`, which finds a storage by its key and raises FormatError."""

    pickled: object
    record: Callable[[str], Record]
    big_endian: bool = False


class Part:
    """The bytes [begin, end) of `file`, for `pickletools` to read. Asked for more than is left, it gives the rest."""

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
    """Takes persistent ids for storages, and keeps the element size with which each key was first named."""

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
    """Some of `names` for a sentence."""
    return ", ".join(list(names)[:most]) or "nothing"
