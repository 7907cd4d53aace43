"""The relative shift of attention, from scores by distance to scores by frame, without a gather.

Icefall's offline exports gather every score by an index of its own (`GatherElements`), of eight bytes for four. Row t
of T needs K columns from T - 1 - t on: with one more column in each row, all rows end to end and the first T - 1 values
cut off, each row begins where it is needed (`moulin.encoders.relative_shift` exports the same). That column comes with
the matrix product that makes the scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes
from moulin.onnx_rewrites.graph_view import GraphView

if TYPE_CHECKING:
    import onnx

_LEAST_OPSET = 13
"""Pad, Slice and Unsqueeze take what they need as inputs from there on."""


class _Gather(NamedTuple):
    """A gather of `columns` (a scalar tensor, K) scores a row from what the `product` [heads, N, T, n] makes."""

    node: onnx.NodeProto
    product: onnx.NodeProto
    columns: str


def shift_without_gather(model: onnx.ModelProto) -> int:
    """Replace every gather of a relative shift in `model` by reshapes and slices, in place; return their number."""
    if any(opset.version < _LEAST_OPSET for opset in model.opset_import if opset.domain in ("", "ai.onnx")):
        return 0
    view = GraphView(model)
    found = [gather for node in model.graph.node if (gather := _gather(view, node)) is not None]
    by_output = {gather.node.output[0]: gather for gather in found}
    by_product = {gather.product.output[0]: gather for gather in found}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        output = node.output[0] if node.output else ""
        if output in by_output:
            nodes += _shift(view, by_output[output])
        elif output in by_product:
            nodes += _wider_product(view, node)
        else:
            nodes.append(node)
    if found:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        remove_dead_nodes(model)
    return len(found)


def _gather(view: GraphView, node: onnx.NodeProto) -> _Gather | None:
    """The relative shift at `node`; None where any node differs from the pattern."""
    if node.op_type != "GatherElements" or [a.i for a in node.attribute if a.name == "axis"] != [1]:
        return None
    rows_of = view.made_by(node.input[0], "Reshape")
    product = view.made_by(rows_of.input[0], "MatMul") if rows_of is not None else None
    indices = view.made_by(node.input[1], "Add")
    if rows_of is None or product is None or indices is None or not view.has_one_taker(rows_of.output[0]):
        return None
    others = [taker for taker in view.takers(product.output[0]) if taker is not rows_of]
    distances = view.made_by(product.input[1], "Transpose")
    if distances is None or len(_perm(distances)) != 4:
        return None
    if any(taker.op_type != "Shape" or taker.attribute for taker in others):
        return None
    first, columns = (_range(view, name) for name in indices.input)
    if first is None or columns is None or _steps(view, first) != (-1, -1) or view.number(columns.input[0]) != 0:
        return None
    return _Gather(node, product, columns.input[1]) if view.number(columns.input[2]) == 1 else None


def _perm(transpose: onnx.NodeProto) -> list[int]:
    return [axis for attribute in transpose.attribute if attribute.name == "perm" for axis in attribute.ints]


def _range(view: GraphView, tensor: str) -> onnx.NodeProto | None:
    """The Range whose numbers, repeated, are `tensor`."""
    node = view.made_by(tensor, "Range", "Unsqueeze", "Tile", "Expand", "Reshape")
    return node if node is None or node.op_type == "Range" else _range(view, node.input[0])


def _steps(view: GraphView, node: onnx.NodeProto) -> tuple[float | None, float | None]:
    """The limit and the step of a Range."""
    return view.number(node.input[1]), view.number(node.input[2])


def _wider_product(view: GraphView, product: onnx.NodeProto) -> list[onnx.NodeProto]:
    """`product` with a column of zeros behind its others. What takes its shape sees that of before."""
    from onnx import helper

    (output,) = product.output
    pads = view.add_constant(f"{output}/pads", np.array([0] * 7 + [1], np.int64))
    more = view.add_constant(f"{output}/more", np.array([0, 0, 0, 1], np.int64))
    for taker in view.takers(output):
        if taker.op_type == "Shape":
            view.replace(taker.output[0], f"{output}/shape")
    return [
        helper.make_node("Pad", [product.input[1], pads], [f"{output}/distances"]),
        helper.make_node("MatMul", [product.input[0], f"{output}/distances"], [f"{output}/wide"]),
        helper.make_node("Shape", [f"{output}/wide"], [f"{output}/wide_shape"]),
        helper.make_node("Sub", [f"{output}/wide_shape", more], [f"{output}/shape"]),
    ]


def _shift(view: GraphView, gather: _Gather) -> list[onnx.NodeProto]:
    """What `gather` gathers, [heads * N * T, K], from the wider product [heads, N, T, n + 1]."""
    from onnx import helper

    (scores,), (output,) = gather.product.output, gather.node.output
    nodes: list[onnx.NodeProto] = []

    def constant(part: str, *values: int) -> str:
        return view.add_constant(f"{output}/{part}", np.array(values, np.int64))

    def node(op_type: str, part: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, list(inputs), [f"{output}/{part}"], **attributes))
        return f"{output}/{part}"

    zero, one, two, three, four = (constant(str(number), number) for number in range(5))
    frames = node("Slice", "frames", f"{scores}/shape", two, three)
    distances = node("Slice", "distances", f"{scores}/shape", three, four)
    columns = node("Reshape", "columns", gather.columns, one)
    start = node("Sub", "start", frames, one)
    end = node("Add", "end", start, node("Mul", "length", frames, distances))
    flat = node("Reshape", "flat", f"{scores}/wide", constant("flat_shape", 0, 0, -1))
    shape = node("Concat", "rows_shape", constant("kept_axes", 0, 0, -1), distances, axis=0)
    rows = node("Reshape", "rows", node("Slice", "cut", flat, start, end, two), shape)
    kept = node("Slice", "kept", rows, zero, columns, three)
    as_gathered = node("Concat", "shape", constant("any", -1), columns, axis=0)
    nodes.append(helper.make_node("Reshape", [kept, as_gathered], [output]))
    return nodes
