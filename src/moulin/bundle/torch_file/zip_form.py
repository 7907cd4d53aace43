"""The format of PyTorch since 1.6: a zip archive with `NAME/data.pkl`, a record `NAME/data/KEY` for each storage, and
`NAME/byteorder`. Records are not compressed, so a storage is a byte range of the file."""

from __future__ import annotations

import struct
import zipfile
from typing import IO

from moulin.bundle.torch_file.known_globals import KNOWN
from moulin.bundle.torch_file.records import Contents, FormatError, Part, Record, Storages, tail_of
from moulin.bundle.torch_file.unpickler import Unpickler

MAGIC = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x06"
_USUAL_END, _LONGEST_END = 98, 2**16 + 98
"""Bytes of the directory's ends (zip64's, its locator, the old one), and with a comment of 64 kB behind them."""
_LARGEST_DIRECTORY = 2**24
"""Bytes of the directory: some 200,000 records, of which a checkpoint has one a tensor."""


def read_zip(file: IO[bytes], size: int) -> Contents:
    """The contents of the zip archive in `file`, which has `size` bytes. Raises FormatError and PickleError."""
    entries = _entries(file, size)
    name = _name(entries)
    if f"{name}/constants.pkl" in entries or any(entry.startswith(f"{name}/code/") for entry in entries):
        raise FormatError(
            "is a TorchScript program (torch.jit.save), not a checkpoint",
            "use the checkpoint that it was made from, pretrained.pt or epoch-N.pt, or the model's ONNX files",
        )

    def record(entry: str) -> Record:
        if entry not in entries:
            raise FormatError(f"has no record '{entry}'", "copy it here once more: it is damaged")
        return _record(file, size, entries[entry])

    pickled = record(f"{name}/data.pkl")
    part = Part(file, pickled.begin, pickled.begin + pickled.size)
    content = Unpickler(part, KNOWN, Storages()).load()
    return Contents(content, lambda key: record(f"{name}/data/{key}"), _is_big_endian(file, size, entries, name))


def _entries(file: IO[bytes], size: int) -> dict[str, zipfile.ZipInfo]:
    _expect_small_directory(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, OSError) as error:
        raise FormatError(
            f"cannot be read as a checkpoint: the directory at its end is missing or damaged ({error})",
            "copy it here once more: it may be cut off",
        ) from error
    entries = {entry.filename: entry for entry in listed}
    if len(entries) < len(listed):
        raise FormatError("is a zip archive with two records of one name")
    return entries


def _expect_small_directory(file: IO[bytes], size: int) -> None:
    """Raise FormatError where the archive has more records than any checkpoint: zipfile reads them all."""
    for longest in (_USUAL_END, _LONGEST_END):
        file.seek(max(0, size - longest))
        end = file.read(longest)
        if (at := end.rfind(_END)) >= 0:
            break
    else:
        return  # zipfile says what is missing
    (directory,) = struct.unpack_from("<L", end.ljust(at + 22, b"\0"), at + 12)
    if directory == 0xFFFFFFFF and (at64 := end.rfind(_END_64)) >= 0:
        (directory,) = struct.unpack_from("<Q", end.ljust(at64 + 56, b"\0"), at64 + 40)
    if directory > _LARGEST_DIRECTORY:
        raise FormatError("is a zip archive with more records than a checkpoint has")


def _name(entries: dict[str, zipfile.ZipInfo]) -> str:
    """The name of the archive's top folder."""
    found = [entry.removesuffix("/data.pkl") for entry in entries if entry.endswith("/data.pkl")]
    names = [name for name in found if "/" not in name]
    if len(names) == 1:
        return names[0]
    if any(entry.endswith("/model.json") or entry.startswith("code/") for entry in entries):
        raise FormatError(
            "is a TorchScript program of an early PyTorch, not a checkpoint", "use pretrained.pt or epoch-N.pt"
        )
    raise FormatError(
        f"is a zip archive, but not PyTorch's: expected one NAME/data.pkl, got {tail_of(list(entries))}",
        "pass the file that torch.save wrote",
    )


def _record(file: IO[bytes], size: int, entry: zipfile.ZipInfo) -> Record:
    """The location of `entry`'s bytes, found from its local header, which may be longer than the directory states."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
        raise FormatError(
            f"has a compressed or encrypted record '{entry.filename}'", "unzip it, and pack it with `zip -0 -r`"
        )
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(MAGIC):
        raise FormatError(f"has no record '{entry.filename}' where its directory says", "copy it here once more")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    begin = entry.header_offset + _LOCAL_HEADER.size + name + extra
    if entry.file_size != entry.compress_size or begin + entry.file_size > size:
        raise FormatError(f"has a record '{entry.filename}' that goes beyond its end", "copy it here once more")
    # torch.serialization.set_crc32_options(False) leaves zeros.
    return Record(begin, entry.file_size, entry.CRC or None)


def _is_big_endian(file: IO[bytes], size: int, entries: dict[str, zipfile.ZipInfo], name: str) -> bool:
    if f"{name}/byteorder" not in entries:  # before PyTorch 2.1
        return False
    record = _record(file, size, entries[f"{name}/byteorder"])
    file.seek(record.begin)
    order = file.read(min(record.size, 16))
    if order not in (b"little", b"big"):
        raise FormatError(f"has an unknown byte order {order!r}")
    return order == b"big"
