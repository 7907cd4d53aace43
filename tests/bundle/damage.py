"""Edits of ONNX files, as an export script of another kind or a bad day would have made them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from moulin.bundle.load import load_bundle
from moulin.errors import BundleError


def edit_onnx(file: Path, change: Callable[[Any], None]) -> None:
    """Let `change` alter the `onnx.ModelProto` in `file`."""
    model = onnx.load(file)
    change(model)
    file.write_bytes(model.SerializeToString())


def set_metadata(file: Path, **values: str | None) -> None:
    """Set metadata entries; None removes one."""

    def change(model: Any) -> None:
        kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key not in values]
        del model.metadata_props[:]
        for key, value in [*kept, *values.items()]:
            if value is not None:
                model.metadata_props.add(key=key, value=value)

    edit_onnx(file, change)


def rename_tensors(file: Path, names: dict[str, str]) -> None:
    """Rename inputs or outputs, and what reads or writes them."""

    def renamed(strings: Any) -> None:
        for index, name in enumerate(strings):
            strings[index] = names.get(name, name)

    def change(model: Any) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.name = names.get(value.name, value.name)
        for node in model.graph.node:
            renamed(node.input)
            renamed(node.output)

    edit_onnx(file, change)


def use_external_data(file: Path, location: str) -> Path:
    """Move the weights of `file` to `location` beside it."""
    model = onnx.load(file)
    file.unlink()
    onnx.save(model, file, save_as_external_data=True, location=location, size_threshold=64)
    return file.parent / location


def refused(model: Path, named: Path, match: str, *, hint: bool = True) -> None:
    """`model` is refused with one sentence about `named` in which `match` occurs, and a hint if there should be."""
    with pytest.raises(BundleError, match=match) as caught:
        load_bundle(model)
    assert str(named) in caught.value.message
    assert "\n" not in caught.value.message
    assert not caught.value.message.endswith(".")
    assert bool(caught.value.hint) == hint


def part(folder: Path, role: str) -> Path:
    return next(folder.glob(f"{role}*1.onnx"))
