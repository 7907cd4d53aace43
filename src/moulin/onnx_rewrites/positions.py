"""Position encodings of Zipformer2, computed for any length instead of sliced from a table.

Icefall's export stores the encodings of the distances between a limited number of frames as a constant (20 or 40 s of
audio) and slices it; a longer utterance makes the slice wrong. Users computed it within the graph by editing
`extend_pe` in zipformer.py (`CompactRelPositionalEncoding`) before they exported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes, remove_unread_initializers

if TYPE_CHECKING:
    import onnx

_CLOSE = {"float32": 1e-4, "float16": 4e-3}
_LEAST_OPSET = 11


def compute_positions(model: onnx.ModelProto) -> int:
    """Replace every slice of a table of Zipformer2's position encodings by their computation, in place; return the
    number of slices. Tables with other values, and other graphs, are not changed."""
    from onnx import numpy_helper

    if next((it.version for it in model.opset_import if it.domain in ("", "ai.onnx")), 0) < _LEAST_OPSET:
        return 0
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    nodes: list[onnx.NodeProto] = []
    replaced = 0
    for node in model.graph.node:
        table = constants.get(node.input[0]) if node.op_type == "Slice" and len(node.input) >= 3 else None
        if table is None or len(table.dims) not in (2, 3) or not _is_table(numpy_helper.to_array(table)):
            nodes.append(node)
            continue
        replaced += 1
        nodes += _computed(model, node, numpy_helper.to_array(table))
    if replaced:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        remove_dead_nodes(model)
        remove_unread_initializers(model)
    return replaced


def encodings(rows: int, width: int) -> NDArray[Any]:
    """float64 [rows, width]: the encodings of the distances -(rows // 2) to rows // 2, as Icefall defines them."""
    distance = np.arange(rows) - rows // 2
    near = np.sqrt(width)
    angle = np.arctan(near * np.sign(distance) * np.log(np.abs(distance) / near + 1) * (2 * np.pi / width))
    angles = angle[:, None] * np.arange(1, width // 2 + 1)
    terms = np.stack((np.cos(angles), np.sin(angles)), axis=-1).reshape(rows, width)
    terms[:, -1] = 1
    return np.asarray(terms)


def _is_table(values: NDArray[Any]) -> bool:
    """Whether `values` [(1,) rows, width] are the encodings of that many rows."""
    rows, width = values.shape[-2:]
    if rows % 2 == 0 or width % 2 or width < 2 or values.size != rows * width or str(values.dtype) not in _CLOSE:
        return False
    return bool(np.allclose(values.reshape(rows, width), encodings(rows, width), atol=_CLOSE[str(values.dtype)]))


def _computed(model: onnx.ModelProto, cut: onnx.NodeProto, table: NDArray[Any]) -> list[onnx.NodeProto]:
    """Nodes that compute what `cut` slices: as many rows as lie between its start and its end, around distance 0."""
    from onnx import TensorProto, helper, numpy_helper

    width = table.shape[-1]
    prefix = f"{cut.output[0]}/computed_"
    nodes: list[onnx.NodeProto] = []

    def constant(part: str, value: Any, dtype: Any) -> str:
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), prefix + part))
        return prefix + part

    def node(op_type: str, part: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, list(inputs), [prefix + part], **attributes))
        return prefix + part

    near = float(np.sqrt(width))
    scalar = constant("scalar", [], np.int64)
    zero, one, two = (constant(name, value, np.int64) for name, value in (("zero", 0), ("one", 1), ("two", 2)))
    # Starts and ends are int64 of one element; the number of rows is odd.
    rows = node("Reshape", "rows", node("Sub", "length", cut.input[2], cut.input[1]), scalar)
    steps = node("Range", "steps", zero, rows, one)
    distance = node(
        "Cast", "distance", node("Sub", "centred", steps, node("Div", "half", rows, two)), to=TensorProto.FLOAT
    )
    share = node("Div", "share", node("Abs", "abs", distance), constant("near", near, np.float32))
    logarithm = node("Log", "log", node("Add", "plus_one", share, constant("one_float", 1, np.float32)))
    squeezed = node("Mul", "squeezed", node("Sign", "sign", distance), logarithm)
    scaled = node("Mul", "scaled", squeezed, constant("scale", near * 2 * np.pi / width, np.float32))
    column = node("Reshape", "column", node("Atan", "angle", scaled), constant("as_column", [-1, 1], np.int64))
    angles = node("Mul", "angles", column, constant("multiples", np.arange(1, width // 2 + 1), np.float32))
    # Each term twice beside itself: cosines in the even columns, sines in the odd ones, the last of which is 1.
    as_pairs = constant("as_pairs", [-1, width // 2, 1], np.int64)
    cosines = node("Reshape", "cosines", node("Cos", "cos", angles), as_pairs)
    sines = node("Reshape", "sines", node("Sin", "sin", angles), as_pairs)
    joined = node("Concat", "joined", cosines, sines, axis=2)
    shape = [1, -1, width] if table.ndim == 3 else [-1, width]
    terms = node("Reshape", "terms", joined, constant("as_table", shape, np.int64))
    kept = np.ones(width)
    kept[-1] = 0
    masked = node("Mul", "masked", terms, constant("kept", kept, np.float32))
    result = node("Add", "result", masked, constant("last", 1 - kept, np.float32))
    dtype = TensorProto.FLOAT16 if table.dtype == np.float16 else TensorProto.FLOAT
    nodes.append(helper.make_node("Cast", [result], [cut.output[0]], to=dtype))
    return nodes
