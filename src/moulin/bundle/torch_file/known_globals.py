"""The classes and functions that checkpoints name, each with the function of moulin's that stands in for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from moulin.bundle.torch_file.inert import Placeholder, as_key, rebuilt
from moulin.bundle.torch_file.stored_tensor import ITEM_SIZES, StorageType, StoredTensor, stored_tensor

_NUMPY_SCALAR = re.compile(r"[biufcSU]\d{1,6}")
_ENCODINGS = ("latin1", "latin-1", "utf-8", "utf8", "ascii")


class NumpyDtype:
    """A NumPy dtype by its code (`f8`, `U5`); its byte order arrives as the pickled state."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def take_state(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]


def _mapping(items: object = ()) -> dict[object, object]:
    pairs: list[Any] = list(items.items()) if isinstance(items, dict) else _sequence(items)
    return {as_key(key): value for key, value in pairs}


def _defaultdict(_factory: object = None, items: object = ()) -> dict[object, object]:
    return _mapping(items)


def _sequence(items: object = (), _most: object = None) -> list[object]:
    if not isinstance(items, list | tuple | set | frozenset):
        raise TypeError("no sequence")
    return list(items)


def _tuple(items: object = ()) -> tuple[object, ...]:
    return tuple(_sequence(items))


def _set(items: object = ()) -> set[object]:
    return set(map(as_key, _sequence(items)))


def _frozenset(items: object = ()) -> frozenset[object]:
    return frozenset(_set(items))


def _encoded(text: object, encoding: object = "utf-8") -> bytes:
    """`_codecs.encode`, which stands for bytes in pickles that Python 2 can read."""
    if not isinstance(text, str) or encoding not in _ENCODINGS:
        raise TypeError("no text")
    return text.encode(str(encoding))


def _bytearray(content: object = b"", encoding: object = "latin-1") -> bytes:
    return content if isinstance(content, bytes) else _encoded(content, encoding)


def _complex(real: object, imaginary: object = 0.0) -> complex:
    if not isinstance(real, float) or not isinstance(imaginary, float):
        raise TypeError("no numbers")
    return complex(real, imaginary)


def _posix_path(*parts: object) -> str:
    return str(PurePosixPath(*map(_text, parts)))


def _windows_path(*parts: object) -> str:
    return str(PureWindowsPath(*map(_text, parts)))


def _text(value: object = "") -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return str(value)


def _device(kind: object, index: object = None) -> str:
    return _text(kind) if index is None else f"{_text(kind)}:{index}"


def _numpy_dtype(code: object, *_: object) -> NumpyDtype:
    if not isinstance(code, str) or not _NUMPY_SCALAR.fullmatch(code):
        raise TypeError("no type of plain values")
    return NumpyDtype(code)


def _numpy_scalar(dtype: object, content: object = b"") -> object:
    if not isinstance(dtype, NumpyDtype):
        raise TypeError("no type")
    kind: np.dtype[Any] = np.dtype(dtype.order + dtype.code)
    data = content if isinstance(content, bytes) else _encoded(content, "latin-1")
    if len(data) != kind.itemsize:
        raise ValueError("no value of its type")
    return np.frombuffer(data, kind, count=1)[0].item()


def _tensor(storage: object, offset: object, size: object, stride: object, *rest: object) -> object:
    """`_rebuild_tensor`, and `_rebuild_tensor_v2` with requires_grad, hooks and metadata in `rest`."""
    if len(rest) > 2 and rest[2]:
        return Placeholder("a tensor with negated or conjugated values")
    return stored_tensor(storage, offset, size, stride)


def _tensor_with_dtype(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    _requires_grad: object,
    _hooks: object,
    dtype: object,
    metadata: object = None,
) -> object:
    if metadata:
        return Placeholder("a tensor with negated or conjugated values")
    return stored_tensor(storage, offset, size, stride, dtype)


def _parameter(data: object, *_: object) -> object:
    if not isinstance(data, StoredTensor | Placeholder):
        raise TypeError("no tensor")
    return data


def _from_type(function: object, _kind: object, arguments: object, _state: object = None) -> object:
    """`_rebuild_from_type_v2`: a tensor with attributes, as its rebuilding function and arguments."""
    if not isinstance(function, Placeholder) or function.rebuild not in (_tensor, _tensor_with_dtype):
        raise TypeError("no tensor")
    return rebuilt(function, arguments)


def _reconstructed(kind: object, _base: object = None, state: object = None) -> object:
    """`copyreg._reconstructor`: an object in pickle protocols 0 and 1."""
    return rebuilt(kind, () if state is None else (state,))


def _new_object(kind: object, *arguments: object) -> object:
    """`copyreg.__newobj__`."""
    return rebuilt(kind, arguments)


_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "collections.defaultdict": _defaultdict,
    "collections.deque": _sequence,
    "icefall.utils.AttributeDict": _mapping,
    "builtins.dict": _mapping,
    "builtins.list": _sequence,
    "builtins.tuple": _tuple,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.bytearray": _bytearray,
    "builtins.complex": _complex,
    "builtins.str": _text,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "copyreg.__newobj__": _new_object,
    "pathlib.Path": _posix_path,
    "pathlib.PurePath": _posix_path,
    "pathlib.PosixPath": _posix_path,
    "pathlib.PurePosixPath": _posix_path,
    "pathlib.WindowsPath": _windows_path,
    "pathlib.PureWindowsPath": _windows_path,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "torch.Size": _tuple,
    "torch.device": _device,
    "torch.torch_version.TorchVersion": _text,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._tensor._rebuild_from_type_v2": _from_type,
}

_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
}  # fmt: skip
_QUANTISED = {"QInt8": 1, "QUInt8": 1, "QInt32": 4, "QUInt4x2": 1, "QUInt2x4": 1}
_BYTES = StorageType("uint8", 1)

KNOWN: Mapping[str, object] = dict(
    chain(
        ((name, Placeholder(name, function)) for name, function in _FUNCTIONS.items()),
        ((f"torch.{name}", f"torch.{name}") for name in ITEM_SIZES),
        ((f"torch.{kind}Storage", StorageType(name, ITEM_SIZES[name])) for kind, name in _STORAGES.items()),
        ((f"torch.{kind}Storage", StorageType(None, size)) for kind, size in _QUANTISED.items()),
        ((f"torch.{name}", _BYTES) for name in ("UntypedStorage", "storage.UntypedStorage", "storage._UntypedStorage")),
    )
)
"""Known globals by module and name: a Placeholder with moulin's function, or the value itself."""
