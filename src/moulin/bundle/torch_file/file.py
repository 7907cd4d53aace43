"""An open PyTorch file: its content, and its tensors on request."""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from moulin.bundle.torch_file.legacy_form import read_legacy
from moulin.bundle.torch_file.records import Contents, FormatError
from moulin.bundle.torch_file.stored_tensor import ITEM_SIZES, Storage, StoredTensor
from moulin.bundle.torch_file.unpickler import PickleError
from moulin.bundle.torch_file.zip_form import MAGIC as ZIP_MAGIC
from moulin.bundle.torch_file.zip_form import read_zip
from moulin.errors import BundleError, first_line

_OVERLAP = 8
_SMALL, _LARGE = 2**26, 2**20
_PAGES = 2**16
_OTHERS = {
    b"version https://git-lfs": ("is no checkpoint: it is a pointer of Git LFS, not the file itself", "git lfs pull"),
    **dict.fromkeys(
        (b"<!doctype", b"<!DOCTYPE", b"<html", b"<?xml"), ("is no checkpoint: it is a page", "download the file itself")
    ),
}


class TorchFile:
    """A file that `torch.save` wrote. `content` is the saved object: plain values, StoredTensors, and a Placeholder for
    everything else."""

    def __init__(self, path: Path, file: IO[bytes], size: int, contents: Contents) -> None:
        self.path = path
        self.content: Any = contents.pickled
        self._file, self._contents = file, contents
        # Tensors may overlap in the file. Without a limit a small file could expand to any number of elements.
        self.most_elements = self._bytes_left = max(_SMALL, _OVERLAP * size)

    def read(self, tensor: StoredTensor, name: str) -> Tensor:
        """Read `tensor`, and no other bytes; `name` is for error messages. Raises BundleError."""
        try:
            return self._assembled(tensor)
        except FormatError as error:
            raise BundleError(f"'{name}' of {self.path} cannot be read: it {error}", hint=error.hint) from error
        except (OSError, RuntimeError, MemoryError) as error:
            raise BundleError(f"'{name}' of {self.path} cannot be read: {first_line(error)}") from error

    def _assembled(self, tensor: StoredTensor) -> Tensor:
        dtype: torch.dtype = getattr(torch, tensor.dtype)
        item_size = ITEM_SIZES[tensor.dtype]
        if tensor.numel == 0:
            return torch.empty_strided(tensor.size, tensor.stride, dtype=dtype)
        self._bytes_left -= max(tensor.numel, tensor.extent) * item_size
        if self._bytes_left < 0:
            raise FormatError(f"has more than {_OVERLAP} times the elements that are in the file")
        begin = tensor.storage.offset * tensor.storage.type.item_size + tensor.offset * item_size
        buffer = self._bytes(tensor.storage, begin, tensor.extent * item_size)
        if self._contents.big_endian:
            _swap(buffer, item_size // 2 if dtype.is_complex else item_size)
        found = torch.frombuffer(buffer, dtype=dtype).as_strided(tensor.size, tensor.stride)
        wasted = (tensor.extent - tensor.numel) * item_size
        return found.clone() if wasted > max(_LARGE, tensor.numel * item_size) else found

    def _bytes(self, storage: Storage, begin: int, count: int) -> bytearray | mmap.mmap:
        """`count` bytes of `storage` from `begin`. Raises FormatError where the file does not have them all."""
        record = self._contents.record(storage.key)
        whole = (storage.offset + storage.numel) * storage.type.item_size
        if record.size < whole:
            raise FormatError(f"has a storage of {record.size} bytes, expected {whole}", "copy the file here once more")
        if begin + count > whole:
            raise FormatError(f"goes beyond its storage, byte {begin + count} of {whole}")
        buffer = _memory(count)
        self._file.seek(record.begin + begin)
        view = memoryview(buffer)
        while view:
            read = self._file.readinto(view)  # type: ignore[attr-defined]
            if not read:
                raise FormatError("is cut off", "copy the file here once more")
            view = view[read:]
        if record.checksum is not None and count == record.size and zlib.crc32(buffer) != record.checksum:
            raise FormatError("does not have the checksum that was saved with it", "copy the file here once more")
        return buffer


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Open `path` and read everything but its tensors. Nothing that the file names is imported or called.

    Raises BundleError for a file that torch.save did not write.
    """
    try:
        if path.is_fifo():  # opening a pipe would wait for its writer
            raise BundleError(f"{path} cannot be read: it is a pipe", hint="write it into a file first")
        file = path.open("rb", buffering=2**16)
    except FileNotFoundError as error:
        raise BundleError(f"There is no {path}") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        yield _opened(path, file)


def _opened(path: Path, file: IO[bytes]) -> TorchFile:
    try:
        size = os.fstat(file.fileno()).st_size
        return TorchFile(path, file, size, _contents(file, size))
    except FormatError as error:
        raise BundleError(f"{path} {error}", hint=error.hint) from error
    except PickleError as error:
        raise BundleError(
            f"{path} cannot be read as a checkpoint: {error}", hint="copy it here once more: it may be cut off"
        ) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error


def _contents(file: IO[bytes], size: int) -> Contents:
    start = file.read(512)
    if not start:
        raise FormatError("is no checkpoint: it is empty")
    for beginning, (what, hint) in _OTHERS.items():
        if start.startswith(beginning):
            raise FormatError(what, hint)
    if start[257:262] == b"ustar":
        raise FormatError(
            "is a tar archive, which PyTorch wrote before 0.2, if it did",
            "load it with PyTorch and save it again: torch.save(torch.load(FILE), FILE)",
        )
    return read_zip(file, size) if start.startswith(ZIP_MAGIC) else read_legacy(file, size)


def _memory(count: int) -> bytearray | mmap.mmap:
    """A buffer of `count` bytes. Large ones are memory-mapped, because on the heap the buffers read and freed between
    them fragmented it: an average of checkpoints took twice its size."""
    if count < _PAGES:
        return bytearray(count)
    return mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _swap(buffer: bytearray | mmap.mmap, size: int) -> None:
    """Reverse the byte order of every `size` bytes, in place."""
    if size > 1:
        np.frombuffer(buffer, f"u{size}").byteswap(inplace=True)
