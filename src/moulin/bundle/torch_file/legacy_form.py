"""The format of PyTorch before 1.6, and of `torch.save(..., _use_new_zipfile_serialization=False)`.

Five pickles in a row (a magic number, the version, machine properties, the object, the keys of its storages), then the
storages in the order of the keys: the number of elements as int64 and their bytes, always little-endian.
"""

from __future__ import annotations

import struct
from typing import IO

from moulin.bundle.torch_file.known_globals import KNOWN
from moulin.bundle.torch_file.records import Contents, FormatError, Part, Record, Storages
from moulin.bundle.torch_file.unpickler import PickleError, Unpickler

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_NUMEL = struct.Struct("<q")


def read_legacy(file: IO[bytes], size: int) -> Contents:
    """The contents of `file`, which has `size` bytes. Raises FormatError and PickleError."""
    storages = Storages()
    unpickler = Unpickler(Part(file, 0, size), KNOWN, storages)
    try:
        magic = unpickler.load()
    except PickleError as error:
        raise FormatError("is no checkpoint: torch.save did not write it") from error
    if type(magic) is not int or magic != _MAGIC_NUMBER:
        raise FormatError(
            "is no checkpoint: it is a pickle, but not one that torch.save wrote", "save it with torch.save"
        )
    version = unpickler.load()
    if type(version) is not int or version != _VERSION:
        raise FormatError(f"is of a version of PyTorch's format that is not known, expected {_VERSION}")
    unpickler.load()
    content, keys = unpickler.load(), unpickler.load()
    if not isinstance(keys, list) or not all(isinstance(key, str | int) for key in keys):
        raise FormatError("has no list of its storages")
    records = _records(file, size, [str(key) for key in keys], storages.item_sizes)

    def record(key: str) -> Record:
        if key not in records:
            raise FormatError(f"has no storage '{key}'", "copy it here once more: it is damaged")
        return records[key]

    return Contents(content, record)


def _records(file: IO[bytes], size: int, keys: list[str], item_sizes: dict[str, int]) -> dict[str, Record]:
    """The location of each storage; without those from the first truncated one on."""
    records: dict[str, Record] = {}
    position = file.tell()
    for key in keys:
        file.seek(position)
        counted = file.read(_NUMEL.size)
        if key not in item_sizes or len(counted) < _NUMEL.size:
            break
        length = _NUMEL.unpack(counted)[0] * item_sizes[key]
        begin = position + _NUMEL.size
        if length < 0 or begin + length > size:
            break
        records[key] = Record(begin, length)
        position = begin + length
    return records
