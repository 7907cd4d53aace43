"""Shapes that a streaming encoder computes in every step, replaced by constants.

A streaming encoder's window has a fixed length, so that the batch is all that varies. Exports compute every size
nevertheless, by operators on a few integers each, and the encodings of positions from them: half of all operators. The
values are read off runs with two different batches.

An offline encoder gains one per cent of its time by the same for any length, and takes longer to load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes, remove_unread_initializers
from moulin.onnx_rewrites.graph_view import GraphView

if TYPE_CHECKING:
    import onnx

_BATCHES = (2, 3)
_OPEN_ENDED = {"NonZero", "Unique", "Compress", "If", "Loop", "Scan", "NonMaxSuppression"}
"""Operators whose output's shape may depend on values."""

_KEEP, _INFER = 0, -1
"""In the shape of a Reshape: the size of the input's axis, and whatever is left."""


def fix_shapes(model: onnx.ModelProto) -> int:
    """Replace what `model` computes from sizes alone, and is the same for every batch, by constants, and so the shape
    of a Reshape that only keeps axes, in place. Return the number of places.

    Changes nothing in a graph with another open size than the batch, or whose shapes may depend on values.
    """
    if any(node.op_type in _OPEN_ENDED for node in model.graph.node):
        return 0
    runs = [run for batch in _BATCHES if (run := _zeros(model, batch)) is not None]
    sizes = _sizes_taken(model)
    if not runs or not sizes:
        return 0
    values, shapes = _evaluated(model, runs, sizes)
    view = GraphView(model)
    replaced = 0
    for tensor in sizes:
        first, *others = values[tensor]
        if all(first.shape == other.shape and np.array_equal(first, other) for other in others):
            view.replace(tensor, view.add_constant(f"{tensor}/fixed", first))
            replaced += 1
            continue
        for node in view.takers(tensor):
            kept = _kept_axes(values[tensor], shapes[node.input[0]]) if _reshapes_to(node, tensor) else None
            if kept is not None:
                node.input[1] = view.add_constant(f"{node.output[0]}/shape", kept)
                replaced += 1
    remove_dead_nodes(model)
    remove_unread_initializers(model)
    return replaced


def _zeros(model: onnx.ModelProto, batch: int) -> dict[str, NDArray[Any]] | None:
    """Zeros for every input of `model`; None where another axis than one called as the batch is open."""
    from onnx import helper

    stored = {tensor.name for tensor in model.graph.initializer}
    tensors = [tensor for tensor in model.graph.input if tensor.name not in stored]
    axes = {tensor.name: tensor.type.tensor_type.shape.dim for tensor in tensors}
    open_axes = [axis.dim_param for dims in axes.values() for axis in dims if not axis.HasField("dim_value")]
    if len(set(open_axes)) != 1 or "" in open_axes:
        return None
    return {
        tensor.name: np.zeros(
            [axis.dim_value if axis.HasField("dim_value") else batch for axis in axes[tensor.name]],
            helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type),
        )
        for tensor in tensors
    }


def _sizes_taken(model: onnx.ModelProto) -> list[str]:
    """Tensors that follow from sizes and constants alone, and that something else is computed from."""
    constant = {tensor.name for tensor in model.graph.initializer} | {""}
    sizes: set[str] = set()
    taken: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size"):
            sizes.update(node.output)
        elif constant.issuperset(node.input):  # a Constant, or what is folded when the model is loaded
            constant.update(node.output)
        elif all(name in constant or name in sizes for name in node.input):
            sizes.update(node.output)
        else:
            taken |= dict.fromkeys(name for name in node.input if name in sizes)
    return list(taken)


def _evaluated(
    model: onnx.ModelProto, runs: Sequence[Mapping[str, NDArray[Any]]], sizes: Sequence[str]
) -> tuple[dict[str, list[NDArray[Any]]], dict[str, list[NDArray[Any]]]]:
    """The values of the tensors `sizes` in each of `runs`, and the shapes of what is reshaped to them."""
    import onnx
    import onnxruntime
    from onnx import helper

    reshaped = list(
        dict.fromkeys(
            node.input[0] for node in model.graph.node if node.op_type == "Reshape" and node.input[1] in sizes
        )
    )
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    probed.graph.node.extend(helper.make_node("Shape", [name], [f"{name}/probed"]) for name in reshaped)
    names = [*sizes, *(f"{name}/probed" for name in reshaped)]
    del probed.graph.output[:]
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = [dict(zip(names, session.run(names, dict(run)), strict=True)) for run in runs]
    return (
        {name: [values[name] for values in found] for name in sizes},
        {name: [values[f"{name}/probed"] for values in found] for name in reshaped},
    )


def _reshapes_to(node: onnx.NodeProto, shape: str) -> bool:
    zeros_keep = all(attribute.name == "allowzero" and attribute.i == 0 for attribute in node.attribute)
    return node.op_type == "Reshape" and node.input[1] == shape and node.input[0] != shape and zeros_keep


def _kept_axes(wanted: Sequence[NDArray[Any]], shapes: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """One shape for a Reshape that stands for each of `wanted`, for inputs of `shapes`; None where there is none."""
    if len({len(shape) for shape in wanted}) > 1:
        return None
    kept: list[int] = []
    full = [_full(shape, of) for shape, of in zip(wanted, shapes, strict=True)]
    for axis, sizes in enumerate(zip(*full, strict=True)):
        if len(set(sizes)) == 1:
            kept.append(int(sizes[0]))
        elif all(axis < len(shape) and size == shape[axis] for size, shape in zip(sizes, shapes, strict=True)):
            kept.append(_KEEP)
        else:
            kept.append(_INFER)
    return np.array(kept, np.int64) if kept.count(_INFER) <= 1 else None


def _full(shape: NDArray[Any], of: NDArray[Any]) -> list[int]:
    """The sizes that `shape` stands for in a Reshape of a tensor of the shape `of`."""
    sizes = [int(of[axis] if size == _KEEP else size) for axis, size in enumerate(shape)]
    known = math.prod(size for size in sizes if size != _INFER)
    return [math.prod(of.tolist()) // known if size == _INFER else size for size in sizes]
