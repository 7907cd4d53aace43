"""The interface of an ONNX file: names, dtypes and shapes of its inputs and outputs, and its metadata.

The graph is parsed, not run; of weights in external files only existence and size are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from moulin.errors import BundleError, EngineError
from moulin.extras import install_hint

if TYPE_CHECKING:
    import onnx

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
        have = ", ".join(tensor.name for tensor in tensors) or "none"
        raise BundleError(f"Expected {self.file} to have an {kind} '{name}', got {have}")

    def metadata_int(self, key: str) -> int | None:
        """The metadata value of `key` as a number; None where the export wrote none."""
        value = self.metadata.get(key)
        if value is None:
            return None
        try:
            return int(value)
        except ValueError:
            raise BundleError(f"Expected a number as '{key}' in the metadata of {self.file}, got {value!r}") from None


def read_onnx_graph(file: Path) -> OnnxGraph:
    """Parse `file`. Raises BundleError where it is not a complete ONNX model or lacks its external weights."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ModuleNotFoundError as error:
        raise EngineError(
            f"Reading a model needs the package '{error.name}', which is not installed",
            hint=install_hint("engine"),
        ) from error

    try:
        model = onnx.load(file, load_external_data=False)
    except DecodeError:
        raise BundleError(
            f"{file} is not a complete ONNX file ({file.stat().st_size:,} bytes)",
            hint="it may be truncated or a Git LFS pointer: fetch it again and compare its size",
        ) from None
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror or error}") from None
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
        external_files=_external_files(model, file),
        max_positions=_max_positions(model),
    )


def _tensor_spec(value: onnx.ValueInfoProto, file: Path) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    if not tensor.elem_type:
        raise BundleError(f"Expected '{value.name}' of {file} to be a tensor of a known type")
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim)
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)


def _max_positions(model: onnx.ModelProto) -> int | None:
    """The L of a table of relative position encodings: positions -(L-1) to L-1 as a constant [(1,) 2L-1, D].

    The graph slices that table. For a longer input the slice is wrong, and ONNX Runtime fails in a later operator.
    """
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            sizes[node.output[0]] = tuple(node.attribute[0].t.dims)
    tables = [
        sizes[node.input[0]][-2]
        for node in model.graph.node
        if node.op_type == "Slice" and len(sizes.get(node.input[0], ())) in (2, 3)
    ]
    return min(((rows + 1) // 2 for rows in tables if rows % 2), default=None)


def _external_files(model: onnx.ModelProto, file: Path) -> tuple[Path, ...]:
    """The files with the weights of `model`. Raises BundleError where one is missing or too short."""
    ends: dict[str, int] = {}
    for tensor in model.graph.initializer:
        where = {entry.key: entry.value for entry in tensor.external_data}
        if "location" in where:
            end = _number(where, "offset", file) + _number(where, "length", file)
            ends[where["location"]] = max(end, ends.get(where["location"], 0))
    for location, end in ends.items():
        data = file.parent / location
        # Checked by name only: in a hub cache the file and its weights are links to another folder.
        if Path(location).is_absolute() or ".." in Path(location).parts:
            raise BundleError(f"{file} points outside its own folder for its weights ('{location}')")
        if not data.is_file():
            raise BundleError(
                f"{file} keeps its weights in '{location}', which is not beside it",
                hint="copy the external data file into the same folder",
            )
        if data.stat().st_size < end:
            raise BundleError(
                f"Expected at least {end:,} bytes of weights in {data}, got {data.stat().st_size:,}",
                hint="it may be truncated: fetch it again",
            )
    return tuple(file.parent / location for location in sorted(ends))


def _number(external_data: Mapping[str, str], key: str, file: Path) -> int:
    value = external_data.get(key, "0")
    if not value.isdecimal():
        raise BundleError(f"Expected a number as '{key}' of the external weights of {file}, got {value!r}")
    return int(value)
