"""Swoosh as one operator of the domain `moulin`, for a runtime that has it (`engine/onnxruntime/operators.c`).

The operator's plain twin is the form in seven operators (`swoosh.py`), which this takes:

    Swoosh(x, bias) = log(1 + exp(z)) - slope z - constant        z = x + bias, the bias along the last axis
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes, remove_unread_initializers
from moulin.onnx_rewrites.graph_view import GraphView
from moulin.onnx_rewrites.swoosh import Swoosh, in_first_form, number_type

if TYPE_CHECKING:
    import onnx

DOMAIN = "moulin"


def takes_operator(model: onnx.ModelProto) -> bool:
    """Whether `swoosh_in_one_operator` would change `model`."""
    return bool(_found(GraphView(model), model))


def has_operator(content: bytes) -> bool:
    """Whether the model in `content` needs a runtime that has the operator; told without parsing its weights."""
    from onnx import helper

    return helper.make_opsetid(DOMAIN, 1).SerializeToString() in content


def swoosh_in_one_operator(model: onnx.ModelProto) -> int:
    """Make every Swoosh of `model` that stands in the form of `rewrite_swoosh`, also with its constant merged into
    another layer, one operator, in place; return their number. The bias of a matrix product before it goes into it."""
    from onnx import helper

    view = GraphView(model)
    found = _found(view, model)
    if not found:
        return 0
    by_output = {swoosh.output: swoosh for swoosh in found}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        swoosh = by_output.get(node.output[0])
        model.graph.node.append(node if swoosh is None else _operator(view, swoosh))
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    remove_dead_nodes(model)
    remove_unread_initializers(model)
    return len(found)


def _found(view: GraphView, model: onnx.ModelProto) -> list[Swoosh]:
    """None in half precision, for the operator is in single precision."""
    from onnx import TensorProto

    if number_type(model) != TensorProto.FLOAT:
        return []
    return [swoosh for node in model.graph.node if node.op_type == "Log" and (swoosh := in_first_form(view, node))]


def _operator(view: GraphView, swoosh: Swoosh) -> onnx.NodeProto:
    from onnx import helper

    inputs = _product_and_bias(view, swoosh.z) or [swoosh.z]
    return helper.make_node(
        "Swoosh", inputs, [swoosh.output], domain=DOMAIN, slope=swoosh.slope, constant=swoosh.constant
    )


def _product_and_bias(view: GraphView, z: str) -> list[str] | None:
    """The matrix product in floating point and the bias whose sum is `z`, or None."""
    addition = view.made_by(z, "Add")
    for product, bias in (addition.input, reversed(addition.input)) if addition else ():
        value, node = view.constant(bias), view.made_by(product, "MatMul")
        weight = view.constant(node.input[1]) if node else None
        if value is not None and weight is not None and weight.ndim == 2 and value.shape == weight.shape[1:]:
            return [product, bias]
    return None
