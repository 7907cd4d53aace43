"""Tensors of a graph that depend on its weights alone: initializers, constants, and what is computed from them.

Exporters fold some of what they compute from parameters (the factor of a scaled layer, a transposition) and leave the
rest in the graph. A parameter may so be the result of several nodes, which are computed here when it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moulin.bundle.onnx_weights.integers import dequantized
from moulin.bundle.onnx_weights.model_file import Array, WeightFile

if TYPE_CHECKING:
    import onnx

_MOST_ELEMENTS = 1 << 28
_MOST_STEPS = 64
"""Nodes in a row between an initializer and a weight."""


class Constants:
    """The constant tensors of the graph of `file`, by name."""

    def __init__(self, file: WeightFile) -> None:
        self._file = file
        self._tensors: dict[str, onnx.TensorProto] = {}
        self._nodes: dict[str, onnx.NodeProto] = {}

    def take(self, graph: onnx.GraphProto) -> None:
        """Note the initializers of `graph`, the model's or that of a branch."""
        self._tensors |= {tensor.name: tensor for tensor in graph.initializer}

    def add(self, node: onnx.NodeProto) -> bool:
        """Note the outputs of `node` as constants if they are; whether they are. Nodes come in the graph's order."""
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    self._tensors[node.output[0]] = attribute.t
                    return True
        if node.op_type == "Shape" or (
            node.op_type in (*_COMPUTED, "Constant") and all(name in self for name in node.input if name)
        ):
            self._nodes[node.output[0]] = node
            return True
        return False

    def __contains__(self, name: str) -> bool:
        return name in self._tensors or name in self._nodes

    def value(self, name: str, *, size: int | None = None, depth: int = 0) -> Array | None:
        """The value of `name`; None where it is no constant, or is computed by a size of a tensor that is none.

        `size` is taken for such sizes.
        """
        if name in self._tensors:
            return self._file.array(self._tensors[name])
        node = self._nodes.get(name)
        if node is None or depth > _MOST_STEPS:
            return None
        attributes = attributes_of(node)
        if node.op_type == "Constant":
            return np.asarray(next(iter(attributes.values())))
        if node.op_type == "Shape":
            given = self.value(node.input[0], size=size, depth=depth + 1)
            return None if given is None else np.array(given.shape, dtype=np.int64)
        inputs: list[Array | None] = []
        for part in node.input:
            found = self.value(part, size=size, depth=depth + 1) if part else None
            if part and found is None:
                is_size = node.op_type == "Gather" and self._is_size(part)
                return np.array(size, dtype=np.int64) if is_size and size is not None else None
            halves = found is not None and found.dtype == np.float16 and node.op_type in _ARITHMETIC
            inputs.append(found.astype(np.float32) if found is not None and halves else found)
        try:
            if math.prod(np.broadcast_shapes(*_spread(node.op_type, inputs))) > _MOST_ELEMENTS:
                return None
            return np.asarray(_COMPUTED[node.op_type](inputs, attributes))
        except (ValueError, IndexError, TypeError):  # for the graph's input it may be right, and is no weight
            return None

    def float(self, name: str) -> Array | None:
        """The `value` of `name` where it has floating-point numbers."""
        value = self.value(name) if name in self else None
        return value if value is not None and value.dtype.kind == "f" else None

    def origin(self, name: str) -> str:
        """The initializer that `name` is computed from, for messages."""
        while name in self._nodes and self._nodes[name].input:
            name = self._nodes[name].input[0]
        return name

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that computes the constant `name`."""
        return self._nodes.get(name)

    def channels(self, name: str) -> int | None:
        """The channels that the matrix [N, K], of which `name` is a part, is multiplied with: K."""
        tensor = self._tensors.get(self.origin(name))
        return tensor.dims[1] if tensor is not None and len(tensor.dims) == 2 else None

    def _is_size(self, name: str) -> bool:
        return name in self._nodes and self._nodes[name].op_type == "Shape"


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _spread(op_type: str, inputs: Sequence[Array | None]) -> list[tuple[int, ...]]:
    return [part.shape for part in inputs if part is not None] if op_type in _ELEMENTWISE else []


def _axes(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The axes of Squeeze and Unsqueeze: an attribute until opset 12, then an input."""
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(int(axis) for axis in inputs[1].ravel())
    axes = attributes.get("axes")
    return None if axes is None else tuple(axes)


def _slice(inputs: Sequence[Any], _attributes: Mapping[str, Any]) -> Any:
    data, starts, ends = inputs[:3]
    axes = inputs[3] if len(inputs) > 3 and inputs[3] is not None else range(len(starts))
    steps = inputs[4] if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[int(axis)] = slice(int(start), int(end), int(step))
    return data[tuple(index)]


def _reshape(inputs: Sequence[Any], _attributes: Mapping[str, Any]) -> Any:
    data, shape = inputs
    return data.reshape([data.shape[axis] if size == 0 else int(size) for axis, size in enumerate(shape)])


def _cast(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    import onnx

    return inputs[0].astype(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _softmax(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x = inputs[0]
    axis = attributes.get("axis", -1)
    grown = np.exp(x - x.max(axis=axis, keepdims=True))
    return grown / grown.sum(axis=axis, keepdims=True)


_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow")
_ARITHMETIC = (*_ELEMENTWISE, "Exp", "Neg", "Softmax")
"""What is computed in single precision also from weights in half precision."""
_COMPUTED: dict[str, Callable[[Sequence[Any], Mapping[str, Any]], Any]] = {
    "Identity": lambda x, _: x[0],
    "Cast": _cast,
    "Transpose": lambda x, a: x[0].transpose(a.get("perm")),
    "Reshape": _reshape,
    "Squeeze": lambda x, a: np.squeeze(x[0], _axes(x, a)),
    "Unsqueeze": lambda x, a: np.expand_dims(x[0], _axes(x, a) or ()),
    "Slice": _slice,
    "Gather": lambda x, a: np.take(x[0], x[1], axis=a.get("axis", 0)),
    "Concat": lambda x, a: np.concatenate(x, axis=a["axis"]),
    "Exp": lambda x, _: np.exp(x[0]),
    "Neg": lambda x, _: -x[0],
    "Softmax": _softmax,
    "Add": lambda x, _: x[0] + x[1],
    "Sub": lambda x, _: x[0] - x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "Div": lambda x, _: x[0] // x[1] if x[0].dtype.kind == "i" else x[0] / x[1],
    "Pow": lambda x, _: x[0] ** x[1].astype(x[0].dtype),
    "DequantizeLinear": lambda x, a: dequantized(x[0], x[1], x[2] if len(x) > 2 else None, a.get("axis", 1)),
}
"""Operators that a constant may be computed by; none makes a large tensor of small ones but `_ELEMENTWISE`."""
