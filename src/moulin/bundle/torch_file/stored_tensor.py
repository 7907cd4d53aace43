"""The location of a tensor in a file, before any of its bytes are read."""

from __future__ import annotations

from dataclasses import dataclass

from moulin.bundle.torch_file.inert import Placeholder

ITEM_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1, "uint16": 2, "uint32": 4, "uint64": 8,
    "complex128": 16, "complex64": 8, "complex32": 4,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
}  # fmt: skip
"""Bytes of an element, by PyTorch's name of the dtype."""

_MOST_DIMENSIONS = 64  # PyTorch's own limit
_LARGEST = 2**62


@dataclass(frozen=True, slots=True)
class StorageType:
    """A class of PyTorch storages. `dtype` is None for quantised ones, which are not read."""

    dtype: str | None
    item_size: int


@dataclass(frozen=True, slots=True)
class Storage:
    """`numel` elements of the storage `key` in the file; for a view of it, from element `offset` on."""

    key: str
    type: StorageType
    numel: int
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A dense tensor: a part of a storage. Offset and strides count elements, as in PyTorch."""

    storage: Storage
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        product = 1
        for length in self.size:
            product *= length
        return product

    @property
    def extent(self) -> int:
        """Elements of the storage from the tensor's first to its last, both included."""
        if not self.numel:
            return 0
        return 1 + sum((length - 1) * step for length, step in zip(self.size, self.stride, strict=True))

    @property
    def place(self) -> tuple[object, ...]:
        """Equal for tensors that are the same part of the same storage."""
        return self.storage.key, self.dtype, self.storage.offset + self.offset, self.size, self.stride


def stored_tensor(
    storage: object, offset: object, size: object, stride: object, dtype: object = None
) -> StoredTensor | Placeholder:
    """The tensor that `torch._utils._rebuild_tensor*` would return, or a Placeholder where moulin does not read it."""
    if not isinstance(storage, Storage):
        return Placeholder("a tensor without a storage")
    name = storage.type.dtype if dtype is None else str(dtype).removeprefix("torch.")
    if name is None or name not in ITEM_SIZES:
        return Placeholder("a quantised tensor")
    lengths, steps = _counts(size), _counts(stride)
    if len(lengths) != len(steps) or len(lengths) > _MOST_DIMENSIONS:
        raise ValueError("a tensor without a shape")
    (first,) = _counts((offset,))
    return StoredTensor(storage, name, first, lengths, steps)


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list):
        raise TypeError("no sizes")
    for value in values:
        if type(value) is not int or not 0 <= value < _LARGEST:
            raise ValueError("a size that is none")
    return tuple(values)
