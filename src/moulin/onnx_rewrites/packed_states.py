"""All states of a streaming encoder packed into one tensor [N, S].

Icefall's exports have up to a hundred states, with the batch on different axes. Packed, the states of a stream are one
row, which is easy to gather and scatter by stream.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from moulin.bundle.spec import StateSpec, StreamingSpec

STATES, NEW_STATES = "states", "new_states"


def packed_size(streaming: StreamingSpec) -> int:
    """S: the number of floats in a stream's states."""
    return sum(map(_size, streaming.states))


def pack_states(model: ModelProto, streaming: StreamingSpec) -> ModelProto:
    """`model` with the inputs x and `states` float32 [N, S], and behind the outputs of its heads `new_states` [N, S].

    A stream's row holds its states in the order of `streaming`, each flattened without its batch axis; a new stream's
    are zeros. Counters are stored as floats, exact for the first 90 hours of a stream, and the one that Icefall leaves
    to the caller (the Conformer's `processed_lens`) is incremented in the graph.
    """
    packed = ModelProto()
    packed.CopyFrom(model)
    graph = packed.graph
    size = packed_size(streaming)
    _exchange(graph.input, {state.name for state in streaming.states}, STATES, size)
    _exchange(graph.output, {state.output for state in streaming.states}, NEW_STATES, size)

    sizes = _constant(graph, "packed/sizes", [_size(state) for state in streaming.states])
    before = [helper.make_node("Split", [STATES, sizes], [_flat(state) for state in streaming.states], axis=1)]
    after: list[NodeProto] = []
    for state in streaming.states:
        before += _unpacked(graph, state)
        after += _packed(graph, state)
    new = [f"{_flat(state)}/new" for state in streaming.states]
    nodes = [*before, *graph.node, *after, helper.make_node("Concat", new, [NEW_STATES], axis=1)]
    del graph.node[:]
    graph.node.extend(nodes)
    return packed


def _exchange(tensors: Any, names: set[str] | set[str | None], name: str, size: int) -> None:
    """Replace the tensors called `names` by one tensor [N, size]."""
    kept = [tensor for tensor in tensors if tensor.name not in names]
    del tensors[:]
    tensors.extend([*kept, helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])])


_Step = tuple[str, list[str], dict[str, Any]]
"""A node of a chain: operator, inputs after the first, attributes."""


def _unpacked(graph: GraphProto, state: StateSpec) -> list[NodeProto]:
    """Nodes from the flat state [N, s] to the graph's input."""
    flat, rest = _flat(state), _rest(state)
    # A zero in Reshape's shape keeps the axis's size.
    shape = _constant(graph, f"{flat}/shape", [0, *rest] if rest else [-1])
    steps: list[_Step] = [("Reshape", [shape], {})]
    if state.batch_axis:
        order = list(range(1, len(rest) + 1))
        order.insert(state.batch_axis, 0)
        steps.append(("Transpose", [], {"perm": order}))
    if state.dtype != "float32":
        steps.append(("Cast", [], {"to": int(helper.np_dtype_to_tensor_dtype(np.dtype(state.dtype)))}))
    return _chain(flat, steps, state.name)


def _packed(graph: GraphProto, state: StateSpec) -> list[NodeProto]:
    """Nodes from the graph's output (or from the input of a counter, incremented here) to the flat state [N, s]."""
    flat, rest = _flat(state), _rest(state)
    steps: list[_Step] = []
    if state.output is None:
        steps.append(("Add", [_constant(graph, f"{flat}/increment", np.array(state.increment, state.dtype))], {}))
    if state.dtype != "float32":
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if state.batch_axis:
        others = [axis for axis in range(len(rest) + 1) if axis != state.batch_axis]
        steps.append(("Transpose", [], {"perm": [state.batch_axis, *others]}))
    steps.append(("Reshape", [_constant(graph, f"{flat}/size", [-1, _size(state)])], {}))
    return _chain(state.output or state.name, steps, f"{flat}/new")


def _chain(source: str, steps: list[_Step], result: str) -> list[NodeProto]:
    """A sequence of nodes from the tensor `source` to the tensor `result`."""
    names = [source, *(f"{result}/{number}" for number in range(1, len(steps))), result]
    return [
        helper.make_node(kind, [names[number], *others], [names[number + 1]], **attributes)
        for number, (kind, others, attributes) in enumerate(steps)
    ]


def _constant(graph: GraphProto, name: str, value: Any) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    return name


def _flat(state: StateSpec) -> str:
    return f"packed/{state.name}"


def _rest(state: StateSpec) -> list[int]:
    """The state's shape without its batch axis."""
    return [size for axis, size in enumerate(state.shape) if axis != state.batch_axis]


def _size(state: StateSpec) -> int:
    return math.prod(_rest(state))
