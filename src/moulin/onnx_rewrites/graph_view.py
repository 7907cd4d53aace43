"""What makes and what takes each tensor of a graph, and the constants in it, for rewriting the graph."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from moulin.onnx_rewrites.dead_nodes import read_names

if TYPE_CHECKING:
    import onnx


class GraphView:
    """A graph as it was when the view was made, but for what the view itself changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._makers = {output: node for node in model.graph.node for output in node.output}
        self._takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in read_names(node):
                self._takers[name].append(node)
        self._outputs = {output.name for output in model.graph.output}
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}

    def made_by(self, tensor: str, *op_types: str) -> onnx.NodeProto | None:
        """The node that makes `tensor`, if it is one of `op_types`."""
        node = self._makers.get(tensor)
        return node if node is not None and node.op_type in op_types else None

    def takers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that take `tensor`."""
        return self._takers[tensor]

    def only_taker(self, tensor: str, *op_types: str) -> onnx.NodeProto | None:
        """The only node that takes `tensor`, if it is one of `op_types`."""
        if not self.has_one_taker(tensor):
            return None
        (taker,) = self._takers[tensor]
        return taker if taker.op_type in op_types else None

    def has_one_taker(self, tensor: str) -> bool:
        """Whether one input of one node is all that takes `tensor`."""
        takers = self._takers[tensor]
        return len(takers) == 1 and list(takers[0].input).count(tensor) == 1 and tensor not in self._outputs

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """The value of `tensor` if it is the same in every run: an initializer, a Constant, or either by Identity."""
        from onnx import numpy_helper

        if tensor in self._initializers:
            return numpy_helper.to_array(self._initializers[tensor])
        node = self._makers.get(tensor)
        if node is None:
            return None
        if node.op_type == "Identity":
            return self.constant(node.input[0])
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            return numpy_helper.to_array(node.attribute[0].t)
        return None

    def number(self, tensor: str) -> float | None:
        """The value of `tensor` if it is a constant of one element."""
        value = self.constant(tensor)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def replace(self, tensor: str, other: str) -> None:
        """Give the nodes that take `tensor` the tensor `other` instead. What is inside of branches keeps its own."""
        for node in self._takers[tensor]:
            node.input[:] = [other if name == tensor else name for name in node.input]

    def bypass(self, node: onnx.NodeProto) -> bool:
        """Give the takers of what `node` makes its first input instead, and say whether that could be done: a tensor
        that the graph gives out, or that a branch of it takes, keeps its name. The node itself stays."""
        (made,), source = node.output, node.input[0]
        takers = self._takers[made]
        if made in self._outputs or any(made not in taker.input for taker in takers):
            return False
        for taker in takers:
            taker.input[:] = [source if name == made else name for name in taker.input]
        self._takers[source] = [taker for taker in self._takers[source] if taker is not node] + takers
        self._takers[made] = []
        return True

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an initializer whose name begins with `name`; returns the whole name."""
        from onnx import numpy_helper

        while name in self._initializers:
            name += "_"
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        self._initializers[name] = self._graph.initializer[-1]
        return name
