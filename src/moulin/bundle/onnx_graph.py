"""The interface of an ONNX file: names, dtypes and shapes of its inputs and outputs, and its metadata.

The graph is parsed, not run; of weights in external files only existence, size and place are checked. The file is
untrusted: whatever it holds, the only error is BundleError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from moulin.bundle.external_weights import external_files
from moulin.bundle.onnx_without_weights import parse_without_weights
from moulin.bundle.protobuf_size import expect_few_values
from moulin.bundle.untrusted_file import errors_of
from moulin.errors import BundleError, EngineError
from moulin.extras import install_hint
from moulin.quoting import listed, quoted

if TYPE_CHECKING:
    import onnx

_MOST_VALUES = 2_000_000
"""Fields in an ONNX file; the encoder of the largest published Zipformer has some 200,000."""
_MOST_DIMENSIONS = 16
_MOST_NAME = 200
_MOST_DIGITS = 18

Dimension = int | str
"""A fixed size as a number; a dynamic one as its symbolic name, or "?"."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph; `dtype` is numpy's name for it."""

    name: str
    dtype: str
    shape: tuple[Dimension, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """The interface of one ONNX file."""

    file: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    external_files: tuple[Path, ...]
    """Files beside the graph that hold its weights."""
    max_positions: int | None = None
    """The number of time steps that the graph's relative position encodings cover; None where it holds none."""

    @property
    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in (self.file, *self.external_files))

    def input(self, name: str, position: int) -> TensorSpec:
        """The input called `name`, or the one at `position` (sherpa-onnx goes by position alone)."""
        return self._pick(self.inputs, name, position, "input")

    def output(self, name: str, position: int) -> TensorSpec:
        """The output called `name`, or the one at `position`."""
        return self._pick(self.outputs, name, position, "output")

    def _pick(self, tensors: tuple[TensorSpec, ...], name: str, position: int, kind: str) -> TensorSpec:
        for tensor in tensors:
            if tensor.name == name:
                return tensor
        if position < len(tensors):
            return tensors[position]
        have = listed(tensor.name for tensor in tensors)
        raise BundleError(f"Expected {self.file} to have an {kind} '{name}', got {have}")

    def metadata_int(self, key: str) -> int | None:
        """The metadata value of `key` as a number; None where the export wrote none."""
        value = self.metadata.get(key)
        if value is None:
            return None
        digits = value.strip().removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS):
            raise BundleError(f"Expected a number as '{key}' in the metadata of {self.file}, got {quoted(value)}")
        return int(value)


def read_onnx_graph(file: Path) -> OnnxGraph:
    """Parse `file`. Raises BundleError where it is not a complete ONNX model, or lacks its external weights, or has
    them outside of its folder."""
    with errors_of(file):
        return _read(file)


def _read(file: Path) -> OnnxGraph:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ModuleNotFoundError as error:
        raise EngineError(
            f"Reading a model needs the package '{error.name}', which is not installed",
            hint=install_hint("engine"),
        ) from error

    try:
        expect_few_values(file, onnx.ModelProto, _MOST_VALUES)
        model = parse_without_weights(file)
    except DecodeError:
        raise BundleError(
            f"{file} is not a complete ONNX file ({file.stat().st_size:,} bytes)",
            hint="it may be truncated or a Git LFS pointer: fetch it again and compare its size",
        ) from None
    if not model.graph.node or not model.opset_import:  # truncation removes these first: they are last in the file
        raise BundleError(
            f"{file} holds no complete ONNX graph ({file.stat().st_size:,} bytes)",
            hint="it may be truncated: fetch it again and compare its size",
        )

    weights = {tensor.name for tensor in model.graph.initializer}
    return OnnxGraph(
        file=file,
        inputs=tuple(_tensor_spec(value, file) for value in model.graph.input if value.name not in weights),
        outputs=tuple(_tensor_spec(value, file) for value in model.graph.output),
        metadata=MappingProxyType({entry.key: entry.value for entry in model.metadata_props}),
        external_files=external_files(model, file),
        max_positions=_max_positions(model),
    )


def _tensor_spec(value: onnx.ValueInfoProto, file: Path) -> TensorSpec:
    tensor = value.type.tensor_type
    name = value.name
    if len(name) > _MOST_NAME or not name.isprintable():
        raise BundleError(f"Expected {file} to have inputs and outputs with names, got {quoted(name)}")
    dtype = _dtype(tensor.elem_type)
    if dtype is None:
        raise BundleError(f"Expected '{name}' of {file} to be a tensor of numbers, got elem_type {tensor.elem_type}")
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim)
    if len(shape) > _MOST_DIMENSIONS or any(isinstance(size, int) and size < 0 for size in shape):
        raise BundleError(f"Expected '{name}' of {file} to have a shape, got {quoted(list(shape))}")
    return TensorSpec(name, dtype, shape)


def _dtype(elem_type: int) -> str | None:
    """numpy's name of an ONNX element type; None for unknown ones, and for those that numpy itself does not have."""
    import numpy as np
    import onnx

    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
    except (KeyError, ValueError):
        return None
    return dtype.name if isinstance(dtype, np.dtype) and dtype.kind in "biuf" else None


def _max_positions(model: onnx.ModelProto) -> int | None:
    """The L of a table of relative position encodings: positions -(L-1) to L-1 as a constant [(1,) 2L-1, D].

    The graph slices that table. For a longer input the slice is wrong, and ONNX Runtime fails in a later operator.
    """
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output and node.attribute and node.attribute[0].HasField("t"):
            sizes[node.output[0]] = tuple(node.attribute[0].t.dims)
    tables = [
        sizes[node.input[0]][-2]
        for node in model.graph.node
        if node.op_type == "Slice" and node.input and len(sizes.get(node.input[0], ())) in (2, 3)
    ]
    return min(((rows + 1) // 2 for rows in tables if rows > 0 and rows % 2), default=None)
