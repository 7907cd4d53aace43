"""Products of integers, as `quantize_dynamic` writes them, as products with the same weights in floating point.

The weights stay integers in the graph, with a DequantizeLinear behind them: OpenVINO runs that as one layer, and rounds
the other factor by itself. The integer operators it computes one by one, in float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes, remove_unread_initializers
from moulin.onnx_rewrites.graph_view import GraphView

if TYPE_CHECKING:
    import onnx


def multiply_in_float(model: onnx.ModelProto) -> int:
    """Rewrite every product of a dynamically quantised tensor with constant weights, in place; return their number.
    Other graphs are not changed."""
    from onnx import helper

    view = GraphView(model)
    products: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMulInteger" and (found := _product(view, node)) is not None:
            source, scale, product = found
            weight = f"{product.output[0]}/weight"
            quantised = [node.input[1], scale, *node.input[3:4]]
            products[product.output[0]] = [
                helper.make_node("DequantizeLinear", quantised, [weight], axis=1),
                helper.make_node("MatMul", [source, weight], [product.output[0]]),
            ]
    if products:
        nodes = [new for node in model.graph.node for new in products.get(node.output[0], [node])]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        remove_dead_nodes(model)
        remove_unread_initializers(model)
    return len(products)


def _product(view: GraphView, node: onnx.NodeProto) -> tuple[str, str, onnx.NodeProto] | None:
    """What is multiplied by the weights of `node`, the scale of these, and the node that makes the product a float."""
    quantised = view.made_by(node.input[0], "DynamicQuantizeLinear")
    weight = view.constant(node.input[1])
    cast = view.only_taker(node.output[0], "Cast")
    scaled = view.only_taker(cast.output[0], "Mul") if cast is not None else None
    if quantised is None or weight is None or weight.ndim != 2 or cast is None or scaled is None:
        return None
    scales = view.made_by(_other(scaled, cast.output[0]), "Mul")
    scale = _other(scales, quantised.output[1]) if scales is not None else ""
    if view.constant(scale) is None or node.input[2:3] != [quantised.output[2]]:
        return None
    return quantised.input[0], scale, scaled


def _other(node: onnx.NodeProto, name: str) -> str:
    """The input of `node`, which has two, beside the input `name`; empty where there is none."""
    first, second = node.input
    return second if first == name else first if second == name else ""
