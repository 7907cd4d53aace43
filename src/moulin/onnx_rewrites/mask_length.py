"""The width of an offline encoder's padding mask, told by the features' shape instead of by the longest length.

Icefall's CTC exports compute it as the maximum of the lengths. An engine of TensorRT does not know that when it plans
its shapes, and features that are padded beyond the longest utterance are refused. Where they end with it both are the
same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

_FRAMES = "mask/frames"


def tell_mask_length_by_shape(model: ModelProto) -> int:
    """Let every ReduceMax over what is computed of the lengths alone, the input of one axis [N], be over the same of
    the length of the features [N, T, feature_dim], the input of three, in place; returns their number. A streaming
    encoder has no such two."""
    graph = model.graph
    initial = {tensor.name for tensor in graph.initializer}
    inputs = [tensor for tensor in graph.input if tensor.name not in initial]
    if sorted(len(tensor.type.tensor_type.shape.dim) for tensor in inputs) != [1, 3]:
        return 0
    x_lens, x = (tensor.name for tensor in sorted(inputs, key=lambda tensor: len(tensor.type.tensor_type.shape.dim)))
    makers = {output: node for node in graph.node for output in node.output}
    found = [node for node in graph.node if node.op_type == "ReduceMax" and _begins(node, makers, graph) == {x_lens}]
    if not found:
        return 0
    ends = {node.output[0] for node in found}
    of_lengths = {node.output[0] for last in found for node in _chain(last, makers, x_lens)} - ends
    nodes: list[NodeProto] = _frames(graph, x)
    renamed = {x_lens: _FRAMES}
    for node in graph.node:
        if node.output[0] in of_lengths:
            renamed |= {name: f"mask/{name}" for name in node.output}
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.name = f"mask/{node.name}"
            copy.input[:] = [renamed.get(name, name) for name in node.input]
            copy.output[:] = [renamed[name] for name in node.output]
            nodes.append(copy)
        elif node.output[0] in ends:
            node.input[:] = [renamed.get(name, name) for name in node.input]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return len(found)


def _frames(graph: GraphProto, x: str) -> list[NodeProto]:
    """Nodes that make _FRAMES int64 [1], the frames of `x`."""
    axis = numpy_helper.from_array(np.array([1]), "mask/axis")
    graph.initializer.append(axis)
    return [
        helper.make_node("Shape", [x], ["mask/shape"]),
        helper.make_node("Gather", ["mask/shape", axis.name], [_FRAMES], axis=0),
    ]


def _begins(node: NodeProto, makers: dict[str, NodeProto], graph: GraphProto) -> set[str]:
    """The graph's inputs that `node` is computed of."""
    inputs = {tensor.name for tensor in graph.input}
    return {name for before in (node, *_before(node, makers)) for name in before.input if name in inputs}


def _chain(node: NodeProto, makers: dict[str, NodeProto], source: str) -> list[NodeProto]:
    """`node` and the nodes between it and the tensor `source`."""
    every = [node, *_before(node, makers)]
    return [one for one in every if any(source in before.input for before in (one, *_before(one, makers)))]


def _before(node: NodeProto, makers: dict[str, NodeProto]) -> Iterator[NodeProto]:
    """All nodes that `node` is computed of."""
    ahead, seen = [node], set[str]()
    while ahead:
        for name in ahead.pop().input:
            maker = makers.get(name)
            if maker is not None and maker.output[0] not in seen:
                seen.add(maker.output[0])
                ahead.append(maker)
                yield maker
