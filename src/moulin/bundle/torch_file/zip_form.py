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


def read_zip(file: IO[bytes], size: int) -> Contents:
    """The contents of the zip archive in `file`, which has `size` bytes. Raises FormatError and PickleError."""
    entries = _entries(file)
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


def _entries(file: IO[bytes]) -> dict[str, zipfile.ZipInfo]:
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
