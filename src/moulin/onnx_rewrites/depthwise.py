"""Depthwise convolutions over time, rewritten for ONNX Runtime's fast kernels.

The encoders' convolution modules convolve every channel separately over time.

On the CPU ONNX Runtime has a fast kernel for that (channels in blocks, NCHWc), but only for two-dimensional inputs; a
one-dimensional convolution becomes a small matrix product for each channel. So the input gets a height of 1, which
changes only the order of sums.

On a GPU in half precision cuDNN's quick heuristics choose a kernel without groups and launch it for each channel: 6,144
times in a pass of a Conformer with 12 layers of 512 channels, 35 ms on an H200 for any batch, where all the rest takes
6 ms. Single precision is not affected, so these convolutions alone are computed in single precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


_HEIGHT = "moulin_depthwise_height"


def rewrite_depthwise(model: onnx.ModelProto) -> int:
    """Rewrite every depthwise convolution over time of `model` in place; return their number.

    Models of opset 12 and below are not changed: Squeeze and Unsqueeze differ there.
    """
    if any(opset.version < 13 for opset in model.opset_import if opset.domain in ("", "ai.onnx")):
        return 0
    found = _replace(model, _two_dimensional)
    if found:
        model.graph.initializer.append(_height_axis())
    return found


def widen_depthwise(model: onnx.ModelProto) -> int:
    """Make every half-precision depthwise convolution over time of `model` compute in single precision, in place;
    return their number."""
    from onnx import TensorProto

    return _replace(model, _single_precision, of_type=TensorProto.FLOAT16)


def _replace(
    model: onnx.ModelProto,
    replacement: Callable[[onnx.NodeProto, int], list[onnx.NodeProto]],
    *,
    of_type: int | None = None,
) -> int:
    """Replace every depthwise convolution over time (only those with weights `of_type`, if given) by the nodes of
    `replacement(node, number)`; return their number."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer if of_type in (None, tensor.data_type)}
    nodes: list[onnx.NodeProto] = []
    found = 0
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]  # weights that several layers share
        if _is_depthwise(node, weights):
            found += 1
            nodes += replacement(node, found)
        else:
            nodes.append(node)
    if found:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return found


def _is_depthwise(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
    if weight is None or len(weight.dims) != 3:
        return False
    attributes = {attribute.name: attribute for attribute in node.attribute}
    return "auto_pad" not in attributes and "group" in attributes and attributes["group"].i == weight.dims[0] > 1


def _height_axis() -> onnx.TensorProto:
    import numpy as np
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([2], dtype=np.int64), _HEIGHT)


def _two_dimensional(node: onnx.NodeProto, number: int) -> list[onnx.NodeProto]:
    from onnx import helper

    flat, weight, result = (f"moulin_depthwise_{number}_{part}" for part in ("x", "w", "y"))
    convolution = helper.make_node("Conv", [flat, weight, *node.input[2:]], [result], name=node.name)
    for attribute in node.attribute:
        copy = convolution.attribute.add()
        copy.CopyFrom(attribute)
        # Attributes with a value for each axis get one for the height; pads list all beginnings, then all ends.
        if attribute.name in ("kernel_shape", "strides", "dilations"):
            copy.ints[:] = [1, *attribute.ints]
        elif attribute.name == "pads":
            begin, end = attribute.ints
            copy.ints[:] = [0, begin, 0, end]
    return [
        helper.make_node("Unsqueeze", [node.input[0], _HEIGHT], [flat]),
        # Computed once when the model is loaded: ONNX Runtime folds constants.
        helper.make_node("Unsqueeze", [node.input[1], _HEIGHT], [weight]),
        convolution,
        helper.make_node("Squeeze", [result, _HEIGHT], list(node.output)),
    ]


def _single_precision(node: onnx.NodeProto, number: int) -> list[onnx.NodeProto]:
    from onnx import TensorProto, helper

    result = f"moulin_depthwise_{number}_y"
    # The conversions of weights and bias are folded when the model is loaded.
    widened = {name: f"moulin_depthwise_{number}_{part}" for part, name in zip("xwb", node.input, strict=False) if name}
    convolution = helper.make_node("Conv", [widened.get(name, "") for name in node.input], [result], name=node.name)
    convolution.attribute.extend(node.attribute)
    return [
        *(helper.make_node("Cast", [half], [single], to=TensorProto.FLOAT) for half, single in widened.items()),
        convolution,
        helper.make_node("Cast", [result], list(node.output), to=TensorProto.FLOAT16),
    ]
