"""The batch of encoded positions in Zipformer2's attention, stated as 1.

Icefall reshapes the projected positions [1, P, heads * channels] to [-1, P, heads, channels], where P is computed. The
batch is always 1, which TensorRT cannot see: it reserves memory for a batch of up to P, 15 GB for four utterances of
12 s.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


def state_position_batch(model: onnx.ModelProto) -> int:
    """Reshape encoded positions to [1, -1, heads, channels] wherever `model` leaves the batch open, in place; return
    the number of places. The model's constants are initializers. Other graphs are not changed."""
    from onnx import numpy_helper

    from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes

    makers = {output: node for node in model.graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def value(name: str) -> list[Any] | None:
        tensor = constants.get(name)
        return None if tensor is None or len(tensor.dims) != 1 else numpy_helper.to_array(tensor).tolist()

    def open_shape(node: onnx.NodeProto) -> list[int] | None:
        """[heads, channels] of a reshape to [-1, P, heads, channels]."""
        shape = makers.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or shape.op_type != "Concat" or len(shape.input) != 4:
            return None
        batch, length, heads, channels = map(value, shape.input)
        return [*heads, *channels] if batch == [-1] and length is None and heads and channels else None

    def is_one_batch(name: str, channels: int) -> bool:
        """Whether the tensor `name` is the product of one batch [1, P, D] with a matrix [D, channels]."""
        product = makers.get(name)
        if product is None or product.op_type != "MatMul" or product.input[1] not in constants:
            return False
        added = makers.get(product.input[0])
        return (
            list(constants[product.input[1]].dims)[1:] == [channels]
            and added is not None
            and added.op_type == "Unsqueeze"
            and value(added.input[1]) == [0]
        )

    found = 0
    for node in model.graph.node:
        sizes = open_shape(node)
        if sizes is not None and is_one_batch(node.input[0], math.prod(sizes)):
            found += 1
            stated = numpy_helper.from_array(np.array([1, -1, *sizes], np.int64), f"{node.output[0]}/one_batch")
            model.graph.initializer.append(stated)
            node.input[1] = stated.name
    if found:
        remove_dead_nodes(model)
    return found
