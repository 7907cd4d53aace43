"""External weights of an ONNX file: the files that its tensors name, checked before a runtime opens them.

A tensor with external data may be anywhere in the file: an initializer, the value of a `Constant` or of any attribute,
a sparse tensor, in the body of a branch or function, in training information. Releases of ONNX Runtime differ in which
of them they read, and in whether they check the name, so all of them are found, and all names are checked.

A name is relative and leads down: through real folders to a file in the model's own folder. The file itself may be a
link where its real file is in the model's folder too, or beside the real file of the graph, which then is a link as
well: the Hugging Face hub's cache has all files of a model as links into one folder `blobs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moulin.bundle.untrusted_file import expect_regular
from moulin.errors import BundleError
from moulin.quoting import quoted

if TYPE_CHECKING:
    import onnx

_MOST_NAME_BYTES = 255
_MOST_LEVELS = 8
_MOST_FILES = 10_000
_MOST_DIGITS = 19


def external_files(model: onnx.ModelProto, file: Path) -> tuple[Path, ...]:
    """The files with the weights of `model`, which was read from `file`.

    Raises BundleError where one is missing, too short or outside of the folder of `file`.
    """
    ends: dict[str, int] = {}
    for tensor in tensors_in(model):
        if not (tensor.external_data or tensor.data_location == tensor.EXTERNAL):
            continue
        where = _fields(tensor, file)
        end = _number(where, "offset", file) + _number(where, "length", file)
        ends[where["location"]] = max(end, ends.get(where["location"], 0))
        if len(ends) > _MOST_FILES:
            raise BundleError(f"{file} keeps its weights in more than {_MOST_FILES:,} files")
    return tuple(sorted({_checked(location, end, file) for location, end in ends.items()}))


def tensors_in(message: Any) -> Iterator[Any]:
    """Every TensorProto in the protobuf message `message`, at any depth and in any field."""
    messages = [message]
    while messages:
        part = messages.pop()
        if part.DESCRIPTOR.name == "TensorProto":
            yield part
            continue
        for field, value in part.ListFields():
            if field.message_type is not None and _reaches_tensors(field.message_type):
                messages.extend([value] if hasattr(value, "DESCRIPTOR") else value)


def _reaches_tensors(message: Any) -> bool:
    return "TensorProto" in _reached(message)


@cache
def _reached(message: Any) -> frozenset[str]:
    """The names of the messages that the descriptor `message` may hold, its own among them."""
    found: dict[str, Any] = {}
    waiting = [message]
    while waiting:
        one = waiting.pop()
        if one.name not in found:
            found[one.name] = one
            waiting += [field.message_type for field in one.fields if field.message_type is not None]
    return frozenset(found)


def _fields(tensor: Any, file: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key in fields:  # readers differ in which of the two they take
            raise BundleError(f"{file} names the {quoted(entry.key)} of one tensor's external weights twice")
        fields[entry.key] = entry.value
    if "location" not in fields:
        raise BundleError(f"{file} has a tensor with external weights, and does not say in which file")
    return fields


def _number(fields: Mapping[str, str], key: str, file: Path) -> int:
    value = fields.get(key, "0")
    if not (value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS):
        raise BundleError(f"Expected a number as '{key}' of the external weights of {file}, got {quoted(value)}")
    return int(value)


def _checked(location: str, end: int, file: Path) -> Path:
    """The file at `location`, which has at least `end` bytes. Raises BundleError."""
    parts = location.removeprefix("./").split("/")
    if location.startswith("/") or ".." in parts:
        raise BundleError(f"{file} points outside its own folder for its weights ({quoted(location)})")
    if len(parts) > _MOST_LEVELS or not all(map(_is_plain, parts)):
        raise BundleError(f"Expected {file} to name the file with its weights, got {quoted(location)}")
    data = file.parent.joinpath(*parts)
    for level in range(1, len(parts)):
        if file.parent.joinpath(*parts[:level]).is_symlink():
            raise _outside(location, file)
    if not data.exists():
        raise BundleError(
            f"{file} keeps its weights in {quoted(location)}, which is not beside it",
            hint="copy the external data file into the same folder",
        )
    if not _is_inside(data, file):
        raise _outside(location, file)
    size = expect_regular(data)
    if size < end:
        raise BundleError(
            f"Expected at least {end:,} bytes of weights in {data}, got {size:,}",
            hint="it may be truncated: fetch it again",
        )
    return data


def _is_plain(name: str) -> bool:
    """Whether `name` is that of a file or folder, not a path and not an empty or unprintable one."""
    return (
        name not in ("", ".", "..")
        and "\\" not in name
        and name.isprintable()
        and len(name.encode("utf-8", "replace")) <= _MOST_NAME_BYTES
    )


def _is_inside(data: Path, file: Path) -> bool:
    """Whether the real file of `data` is in the folder of `file`, or beside the real file of `file`."""
    real = data.resolve()
    return real.is_relative_to(file.parent.resolve()) or real.parent == file.resolve().parent


def _outside(location: str, file: Path) -> BundleError:
    return BundleError(
        f"{file} keeps its weights in {quoted(location)}, a link that leads out of its folder",
        hint="put the file itself there; links are followed only where the model is one too, into the same folder",
    )
