"""Files of PyTorch's made by hand, for what torch.save does not write."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from moulin.bundle.torch_file import Placeholder, StoredTensor, open_torch_file
from moulin.errors import BundleError


def zip_file(file: Path, pickled: bytes, records: Mapping[str, bytes] | None = None, name: str = "archive") -> Path:
    """A zip as torch.save writes it: `pickled` as its data.pkl, and `records` beside it by name."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}/data.pkl", pickled)
        for record, content in (records or {}).items():
            archive.writestr(f"{name}/{record}", content)
    return file


def content_of(file: Path) -> Any:
    with open_torch_file(file) as opened:
        return opened.content


def unpickled(pickled: bytes, folder: Path) -> Any:
    """What the file of `pickled` holds."""
    return content_of(zip_file(folder / "file.pt", pickled))


class Storage:
    """Stands in a pickle for a storage: its persistent id."""

    def __init__(self, *persistent_id: object) -> None:
        self.persistent_id = persistent_id


class Global:
    """Stands in a pickle for a class or function, by name."""

    def __init__(self, name: str) -> None:
        self.name = name


class Call:
    """Stands in a pickle for the call of a function."""

    def __init__(self, name: str, *arguments: object, state: object = None) -> None:
        self.name, self.arguments, self.state = name, arguments, state


def dumps(value: object, protocol: int = 2) -> bytes:
    """A pickle of `value` in which a Global, Call or Storage is what it stands for, which need not exist."""
    stream = io.BytesIO()
    _Pickler(stream, protocol).dump(value)
    return stream.getvalue()


class _Pickler(pickle._Pickler):
    dispatch: ClassVar[Any] = dict(pickle._Pickler.dispatch)
    save: Callable[[object], None]
    write: Callable[[bytes], None]

    def persistent_id(self, obj: object) -> object:
        return obj.persistent_id if isinstance(obj, Storage) else None

    def save_global_by_name(self, obj: Global) -> None:
        module, _, name = obj.name.rpartition(".")
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    def save_call(self, obj: Call) -> None:
        self.save_global_by_name(Global(obj.name))
        self.save(obj.arguments)
        self.write(pickle.REDUCE)
        if obj.state is not None:
            self.save(obj.state)
            self.write(pickle.BUILD)

    dispatch[Global] = save_global_by_name
    dispatch[Call] = save_call


def stored(value: object) -> StoredTensor:
    assert isinstance(value, StoredTensor), value
    return value


def placeholder(value: object) -> str:
    assert isinstance(value, Placeholder), value
    return value.name


def read(file: Path) -> dict[str, Any]:
    """What `file` holds, with its tensors."""
    with open_torch_file(file) as opened:
        return {
            name: opened.read(value, name) if isinstance(value, StoredTensor) else value
            for name, value in opened.content.items()
        }


def refused(file: Path, match: str, *, hint: bool = True) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        read(file)
    assert str(file) in caught.value.message
    assert "\n" not in caught.value.message
    assert bool(caught.value.hint) == hint
