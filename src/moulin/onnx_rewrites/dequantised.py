"""Products of eight-bit integers as products in floating point, of the same weights.

An int8 file holds weights of eight bits, and rounds what they are multiplied with to eight bits in every call. An
engine that is faster in bfloat16 takes the weights and leaves out the rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes, remove_unread_initializers
from moulin.onnx_rewrites.graph_view import GraphView

if TYPE_CHECKING:
    import onnx


def dequantise(model: onnx.ModelProto) -> int:
    """Replace every product of a tensor that the graph quantises itself and of constant weights, as ONNX Runtime's
    dynamic quantisation writes it, by a MatMul with the weights in float32, in place. Return their number."""
    from onnx import helper

    view = GraphView(model)
    products: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        scaled = _scaled_product(view, node) if node.op_type == "MatMulInteger" else None
        if scaled is not None:
            x, weight, output = scaled
            name = view.add_constant(f"{output}/weight", weight)
            products[output] = helper.make_node("MatMul", [x, name], [output])
    if products:
        nodes = [products.get(node.output[0], node) for node in model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        remove_dead_nodes(model)
        remove_unread_initializers(model)
    return len(products)


def _scaled_product(view: GraphView, product: onnx.NodeProto) -> tuple[str, NDArray[Any], str] | None:
    """The tensor in floating point, the weights in float32 and the name of their product around `product`; None where
    any node differs from the pattern."""
    quantised = view.made_by(product.input[0], "DynamicQuantizeLinear")
    weight = view.constant(product.input[1])
    cast = view.only_taker(product.output[0], "Cast")
    result = view.only_taker(cast.output[0], "Mul") if cast is not None else None
    if quantised is None or weight is None or cast is None or result is None:
        return None
    x_scale, x_zero = quantised.output[1:]
    scales = next((node for name in result.input if (node := view.made_by(name, "Mul"))), None)
    if scales is None or x_scale not in scales.input or list(product.input[2:3]) != [x_zero]:
        return None
    scale = next((value for name in scales.input if (value := view.constant(name)) is not None), None)
    zero = view.constant(product.input[3]) if len(product.input) > 3 else np.zeros((), weight.dtype)
    if scale is None or zero is None:
        return None
    return quantised.input[0], (weight.astype(np.float32) - zero.astype(np.float32)) * scale, result.output[0]
