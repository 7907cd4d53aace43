"""The number of every second, fourth, … frame, computed from the number of frames.

`moulin export` reads ceil(T / f) off the shape of a strided slice. OpenVINO 2026.4 takes the shape before the slice for
it where lengths are dynamic, and fails at the next Reshape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes
from moulin.onnx_rewrites.graph_view import GraphView

if TYPE_CHECKING:
    import onnx


def count_strided(model: onnx.ModelProto) -> int:
    """Compute every size of a slice from the first element on that takes each f-th of one axis as (T + f - 1) // f, in
    place; return the number of places. Other graphs are not changed."""
    from onnx import helper

    view = GraphView(model)
    nodes: list[onnx.NodeProto] = []
    found = 0
    for node in model.graph.node:
        shape = view.made_by(node.input[0], "Shape") if node.op_type == "Gather" else None
        cut = view.made_by(shape.input[0], "Slice") if shape is not None and not shape.attribute else None
        stride = _stride(view, cut) if cut is not None else None
        axis = view.number(node.input[1]) if stride is not None else None
        if cut is None or stride is None or axis is None:
            nodes.append(node)
            continue
        found += 1
        name, strided_axis, step = node.output[0], *stride
        whole = name if axis != strided_axis else f"{name}/whole"
        nodes.append(helper.make_node("Shape", [cut.input[0]], [f"{name}/shape"]))
        gathered = helper.make_node("Gather", [f"{name}/shape", node.input[1]], [whole])
        gathered.attribute.extend(node.attribute)
        nodes.append(gathered)
        if axis == strided_axis:
            more = view.add_constant(f"{name}/more", np.array(step - 1, np.int64))
            by = view.add_constant(f"{name}/by", np.array(step, np.int64))
            nodes.append(helper.make_node("Add", [whole, more], [f"{name}/filled"]))
            nodes.append(helper.make_node("Div", [f"{name}/filled", by], [name]))
    if found:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        remove_dead_nodes(model)
    return found


def _stride(view: GraphView, cut: onnx.NodeProto) -> tuple[int, int] | None:
    """The axis and the step of a slice of every f-th element to the end."""
    if len(cut.input) < 5:
        return None
    start, end, axis, step = (view.number(name) for name in cut.input[1:5])
    if start != 0 or end is None or end < 2**31 - 1 or axis is None or axis < 0 or step is None or step < 2:
        return None
    return int(axis), int(step)
