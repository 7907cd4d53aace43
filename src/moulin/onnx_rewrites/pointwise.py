"""Convolutions with a kernel of one point, rewritten for ONNX Runtime on a CPU.

Its fast kernel for two-dimensional convolutions wants channels in blocks (NCHWc). The activations between the pointwise
convolutions of Zipformer2's ConvNeXt are not computed in that order, so that its largest tensor, of 384 channels, is
reordered twice. As a one-dimensional convolution, which changes no order, the same is one matrix product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moulin.onnx_rewrites.graph_view import GraphView

if TYPE_CHECKING:
    import onnx

_LEAST_OPSET = 13
"""Unsqueeze and Squeeze take their axes as inputs from there on."""


def rewrite_pointwise(model: onnx.ModelProto) -> int:
    """Rewrite every pointwise convolution over two dimensions of `model` to one dimension, in place; return their
    number."""
    if any(opset.version < _LEAST_OPSET for opset in model.opset_import if opset.domain in ("", "ai.onnx")):
        return 0
    from onnx import helper

    view = GraphView(model)
    nodes: list[onnx.NodeProto] = []
    found = 0
    for node in model.graph.node:
        weight = view.constant(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or weight.shape[2:] != (1, 1) or not _is_plain(node):
            nodes.append(node)
            continue
        found += 1
        x, y = node.input[0], node.output[0]
        name = f"{y}/pointwise"
        merged, kept = (
            view.add_constant(f"{name}_{part}", np.array(value, np.int64))
            for part, value in (("merged", [0, 0, -1]), ("kept", [0, 0]))
        )
        from_third, to_end = (
            view.add_constant(f"{name}_{part}", np.array([value], np.int64)) for part, value in (("from", 2), ("to", 4))
        )
        flat_weight = view.add_constant(f"{name}_weight", weight[..., 0])
        nodes += [
            helper.make_node("Reshape", [x, merged], [f"{name}_x"]),
            helper.make_node("Conv", [f"{name}_x", flat_weight, *node.input[2:]], [f"{name}_y"], kernel_shape=[1]),
            helper.make_node("Shape", [x], [f"{name}_shape"]),
            helper.make_node("Slice", [f"{name}_shape", from_third, to_end], [f"{name}_area"]),
            helper.make_node("Concat", [kept, f"{name}_area"], [f"{name}_back"], axis=0),
            helper.make_node("Reshape", [f"{name}_y", f"{name}_back"], [y]),
        ]
    if found:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return found


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether the convolution neither pads, strides, dilates nor groups."""
    plain = {"group": [1], "pads": [0], "strides": [1], "dilations": [1], "kernel_shape": [1]}
    return all(
        set(attribute.ints or [attribute.i]) == set(plain.get(attribute.name, [])) for attribute in node.attribute
    )
