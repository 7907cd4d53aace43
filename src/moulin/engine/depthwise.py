"""Depthwise convolutions over time as two-dimensional ones.

The encoders' convolution modules convolve every channel by itself over time. ONNX Runtime has a fast kernel on the CPU
for that (channels in blocks, NCHWc), but only where the input has height and width; a one-dimensional convolution goes
through a small matrix product for each channel. So the input gets a height of 1, which changes no arithmetic but the
order of sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


_HEIGHT = "moulin_depthwise_height"


def rewrite_depthwise(model: onnx.ModelProto) -> int:
    """Rewrite every depthwise convolution over time of `model` in place; return how many there were.

    Models of opset 12 and below stay as they are: there Squeeze and Unsqueeze are different operators.
    """
    if any(opset.version < 13 for opset in model.opset_import if opset.domain in ("", "ai.onnx")):
        return 0
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    found = 0
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]  # weights that several layers share
        if _is_depthwise(node, weights):
            found += 1
            nodes += _replacement(node, found)
        else:
            nodes.append(node)
    if found:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.append(_height_axis())
    return found


def _is_depthwise(node: onnx.NodeProto, weights: dict[str, tuple[int, ...]]) -> bool:
    shape = weights.get(node.input[1]) if node.op_type == "Conv" else None
    if shape is None or len(shape) != 3:
        return False
    attributes = {attribute.name: attribute for attribute in node.attribute}
    return "auto_pad" not in attributes and "group" in attributes and attributes["group"].i == shape[0] > 1


def _height_axis() -> onnx.TensorProto:
    import numpy as np
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([2], dtype=np.int64), _HEIGHT)


def _replacement(node: onnx.NodeProto, number: int) -> list[onnx.NodeProto]:
    from onnx import helper

    flat, weight, result = (f"moulin_depthwise_{number}_{part}" for part in ("x", "w", "y"))
    convolution = helper.make_node("Conv", [flat, weight, *node.input[2:]], [result], name=node.name)
    for attribute in node.attribute:
        copy = convolution.attribute.add()
        copy.CopyFrom(attribute)
        # What has a value for each axis gets one for the height; pads are all beginnings, then all ends.
        if attribute.name in ("kernel_shape", "strides", "dilations"):
            copy.ints[:] = [1, *attribute.ints]
        elif attribute.name == "pads":
            begin, end = attribute.ints
            copy.ints[:] = [0, begin, 0, end]
    return [
        helper.make_node("Unsqueeze", [node.input[0], _HEIGHT], [flat]),
        # Done once when the model is loaded: ONNX Runtime folds what is constant.
        helper.make_node("Unsqueeze", [node.input[1], _HEIGHT], [weight]),
        convolution,
        helper.make_node("Squeeze", [result, _HEIGHT], list(node.output)),
    ]
