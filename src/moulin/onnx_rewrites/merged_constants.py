"""Numbers that are subtracted from a layer's output or input, merged into its bias.

A Swoosh subtracts a number before its curve and another behind it (`swoosh.py`), each in a pass over a tensor that the
layer before or behind saves by another bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes, remove_unread_initializers
from moulin.onnx_rewrites.graph_view import GraphView

if TYPE_CHECKING:
    import onnx

_LAYOUT = ("Transpose", "Squeeze", "Unsqueeze", "Reshape", "Identity")
"""Operators that only move the elements of their first input."""


class _Bias(NamedTuple):
    """The input `position` of `node`, a bias of `value`; `share` of a number added elsewhere is to be added to it."""

    node: onnx.NodeProto
    position: int
    value: NDArray[Any]
    share: NDArray[Any] | float


def merge_constants(model: onnx.ModelProto) -> int:
    """Merge every subtraction of a number that stands beside a layer into its bias, in place; return their number."""
    view = GraphView(model)
    merged = 0
    for node in model.graph.node:
        amount = view.number(node.input[1]) if node.op_type == "Sub" else None
        if amount is None or view.constant(node.input[0]) is not None:
            continue
        bias = _bias_behind(view, node.output[0]) or _bias_before(view, node.input[0])
        if bias is not None and view.bypass(node):
            merged += 1
            changed = (bias.value - amount * np.asarray(bias.share, np.float64)).astype(bias.value.dtype)
            name = view.add_constant(f"{node.output[0]}/merged", changed)
            inputs = list(bias.node.input)
            bias.node.input[:] = [*inputs[: bias.position], name, *inputs[bias.position + 1 :]]
    if merged:
        remove_dead_nodes(model)
        remove_unread_initializers(model)
    return merged


def _bias_before(view: GraphView, tensor: str) -> _Bias | None:
    """The bias of the layer that makes `tensor`, which nothing else takes."""
    node = view.made_by(tensor, "Add", "Conv", *_LAYOUT)
    if node is None or not view.has_one_taker(tensor):
        return None
    if node.op_type == "Conv":
        return _bias_of_convolution(view, node, 1.0)
    if node.op_type != "Add":
        return _bias_before(view, node.input[0])
    for position, name in enumerate(node.input):
        value = view.constant(name)
        if value is not None:
            return _Bias(node, position, value, 1.0)
    return next((bias for name in node.input if (bias := _bias_before(view, name))), None)


def _bias_behind(view: GraphView, tensor: str) -> _Bias | None:
    """The bias of the only layer that takes `tensor`."""
    node = view.only_taker(tensor, "MatMul", "Conv", *_LAYOUT)
    if node is None or node.input[0] != tensor:
        return None
    if node.op_type in _LAYOUT:
        return _bias_behind(view, node.output[0])
    weight = view.constant(node.input[1])
    if weight is None:
        return None
    if node.op_type == "Conv":
        # Where a convolution reaches into padding, it sees zeros instead of the number.
        return None if _pads(node) else _bias_of_convolution(view, node, weight.sum(axis=tuple(range(1, weight.ndim))))
    addition = view.only_taker(node.output[0], "Add")
    if addition is None or weight.ndim != 2:
        return None
    for position, name in enumerate(addition.input):
        value = view.constant(name)
        if value is not None:
            return _Bias(addition, position, value, weight.sum(axis=0, dtype=np.float64))
    return None


def _bias_of_convolution(view: GraphView, node: onnx.NodeProto, share: NDArray[Any] | float) -> _Bias | None:
    if len(node.input) > 2 and node.input[2]:
        value = view.constant(node.input[2])
    else:
        weight = view.constant(node.input[1])
        value = None if weight is None else np.zeros(len(weight), weight.dtype)
    return None if value is None else _Bias(node, 2, value, share)


def _pads(node: onnx.NodeProto) -> bool:
    return any(
        any(attribute.ints) if attribute.name == "pads" else attribute.name == "auto_pad"
        for attribute in node.attribute
    )
