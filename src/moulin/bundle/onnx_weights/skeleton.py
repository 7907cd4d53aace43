"""The skeleton of a graph: its operations with parameters, and which of them feed each other.

Exporters and their versions lower an activation, a relative shift or a mask to different nodes, and name nodes and
weights differently. What they all keep is which layer's output reaches which layer. So every node without parameters is
transparent here: a tensor's `Flow` is the set of the operations whose outputs reach it through transparent nodes, and
an operation is found by the flow of its input. In a residual network the flow of the sum so far is different at every
place, which makes that exact.

Sizes of tensors (`Shape`) end a flow: they are the same whatever the values are. What is computed from sizes,
constants and states alone (positions, masks) has no flow, and no parameters act on it but those of linear layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from moulin.bundle.onnx_weights.constants import Constants, attributes_of
from moulin.bundle.onnx_weights.integers import Integers
from moulin.bundle.onnx_weights.model_file import Array, WeightFile
from moulin.bundle.onnx_weights.nodes import Nodes, branches, in_order
from moulin.bundle.onnx_weights.operation import NOTHING, Flow, Kind, Operation, the_one
from moulin.errors import BundleError
from moulin.quoting import quoted

if TYPE_CHECKING:
    import onnx


class Skeleton:
    """The operations of the graph of `file`, in the order in which they are computed."""

    def __init__(self, file: WeightFile, *, features: str | None = None, embeddings: bool = False) -> None:
        """`features` is the input that is the first operation; other inputs have no flow. `embeddings`: take a row
        picked from a matrix as an embedding layer, not as a transparent node. Raises BundleError for a graph with
        operators of other runtimes than ONNX."""
        self.file = file
        self.constants = Constants(file)
        self.operations: list[Operation] = []
        self.products: list[tuple[onnx.NodeProto, Flow, Flow]] = []
        """Products of two tensors, neither of them constant, with the flows of both."""
        self._embeddings = embeddings
        self._flows: dict[str, Flow] = {}
        graph = file.model.graph
        for value in graph.input:
            self._flows[value.name] = NOTHING
        if features is not None:
            self.operations.append(Operation(0, "input", features, NOTHING, features))
            self._flows[features] = self.operations[0].alone
        self.nodes = Nodes(graph, self.constants)
        self._walk(graph)

    def flow(self, name: str) -> Flow:
        """The operations that the tensor `name` comes from."""
        return self._flows.get(name, NOTHING)

    def names(self, flow: Flow) -> str:
        """The nodes of a flow's operations, for messages."""
        nodes = [operation.node for operation in self.operations if flow & operation.alone]
        return ", ".join(quoted(node) for node in nodes[-3:]) or "the input"

    # ------------------------------------------------------------------------------------------------------- the walk

    def _walk(self, graph: onnx.GraphProto) -> None:
        self.constants.take(graph)
        for node in in_order(graph):
            if node.domain not in ("", "ai.onnx"):
                raise BundleError(
                    f"Expected operators of ONNX in {self.file.file}, got {quoted(node.op_type)} of "
                    f"{quoted(node.domain)} in {quoted(node.name)}"
                )
            if self.constants.add(node):
                continue
            visit = _VISITS.get(node.op_type)
            flow = None if visit is None else visit(self, node)
            for name in node.output:
                self._flows[name] = self._together(node) if flow is None else flow

    def _together(self, node: onnx.NodeProto) -> Flow:
        flow = NOTHING
        for name in node.input:
            flow |= self.flow(name)
        return flow

    def _if(self, node: onnx.NodeProto) -> Flow:
        flow = NOTHING
        for graph in branches(node):
            self._walk(graph)
            for output in graph.output:
                flow |= self.flow(output.name)
        return flow

    def _scatter(self, node: onnx.NodeProto) -> Flow:
        """Of what is written into: a state, into which every layer writes its own part and reads no other."""
        return self.flow(node.input[0])

    def _size(self, _node: onnx.NodeProto) -> Flow:
        return NOTHING

    def _add_operation(self, kind: Kind, node: onnx.NodeProto, given: Flow, **facts: Any) -> Flow:
        operation = Operation(len(self.operations), kind, node.name or node.output[0], given, node.output[0], **facts)
        self.operations.append(operation)
        return operation.alone

    def _matmul(self, node: onnx.NodeProto) -> Flow:
        first, second = node.input
        weight = self._matrix(second)
        if weight is None:
            self.products.append((node, self.flow(first), self.flow(second)))
            return self.flow(first) | self.flow(second)
        return self._add_operation(
            "linear", node, self.flow(first), weight=weight.T, origin=self.constants.origin(second)
        )

    def _matrix(self, name: str) -> Array | None:
        """A linear layer's weight. Where it is a part of a matrix that the exporter left for the graph to cut by the
        number of channels, that number is the matrix's."""
        weight = self.constants.float(name)
        if weight is None and name in self.constants:
            weight = self.constants.value(name, size=self.constants.channels(name))
        return weight if weight is not None and weight.ndim == 2 and weight.dtype.kind == "f" else None

    def _gemm(self, node: onnx.NodeProto) -> Flow:
        attributes = attributes_of(node)
        first, second, *third = node.input
        weight = self.constants.float(second)
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")
        if weight is None or not plain:
            raise BundleError(f"Expected the node {quoted(node.name)} of {self.file.file} to be a linear layer")
        return self._add_operation(
            "linear",
            node,
            self.flow(first),
            weight=weight if attributes.get("transB") else weight.T,
            bias=self.constants.float(third[0]) if third and third[0] else None,
            origin=self.constants.origin(second),
        )

    def _conv(self, node: onnx.NodeProto) -> Flow:
        first, second, *third = node.input
        weight = self.constants.float(second)
        if weight is None:
            raise BundleError(f"Expected the node {quoted(node.name)} of {self.file.file} to have constant weights")
        return self._add_operation(
            "conv",
            node,
            self.flow(first),
            weight=weight,
            bias=self.constants.float(third[0]) if third and third[0] else None,
            origin=self.constants.origin(second),
            attributes=attributes_of(node),
        )

    def _matmulinteger(self, node: onnx.NodeProto) -> Flow:
        return self._integer(node, "linear")

    def _convinteger(self, node: onnx.NodeProto) -> Flow:
        return self._integer(node, "conv")

    def _integer(self, node: onnx.NodeProto, kind: Kind) -> Flow:
        first, second, *zero_points = node.input
        quantized = self.constants.value(second)
        if quantized is None:
            return self._together(node)
        zero_point = self.constants.value(zero_points[1]) if len(zero_points) > 1 else None
        return self._add_operation(
            kind,
            node,
            self.flow(first),
            integers=Integers(quantized.T if kind == "linear" else quantized, zero_point),
            origin=self.constants.origin(second),
            attributes=attributes_of(node),
        )

    def _gather(self, node: onnx.NodeProto) -> Flow | None:
        table = self.constants.value(node.input[0]) if self._embeddings else None
        if table is None or table.ndim != 2:
            return None
        facts: dict[str, Any] = {"weight": table} if table.dtype.kind == "f" else {"integers": Integers(table, None)}
        given = self.flow(node.input[1])
        return self._add_operation("embedding", node, given, **facts, origin=self.constants.origin(node.input[0]))

    def _dequantizelinear(self, node: onnx.NodeProto) -> Flow | None:
        """Of an embedding's quantised rows; that of a constant is a constant."""
        flow = self.flow(node.input[0])
        operation = the_one(self.operations, flow)
        scale = self.constants.float(node.input[1])
        if operation is None or operation.integers is None or scale is None:
            return None
        operation.integers.scale = scale
        operation.integers.zero_point = self.constants.value(node.input[2]) if len(node.input) > 2 else None
        return flow

    def _reducemean(self, node: onnx.NodeProto) -> Flow:
        return self._add_operation("norm", node, self.flow(node.input[0]))

    def _add(self, node: onnx.NodeProto) -> Flow | None:
        given, constant = self._split(node)
        if constant is None:
            return self._cut_bias(node) or self._combine(node)
        if constant.size == 1:
            return None
        flow = self.flow(given)
        if flow == NOTHING:
            return None
        operation = the_one(self.operations, flow)
        if operation is not None and operation.bias is None and operation.width == constant.size == max(constant.shape):
            operation.bias = constant.reshape(-1)
            return flow
        return self._add_operation("shift", node, flow, weight=constant)

    def _cut_bias(self, node: onnx.NodeProto) -> Flow | None:
        """The sum with a bias that is cut like the weight in `_matrix`."""
        for given, name in (node.input, reversed(node.input)):
            layer = the_one(self.operations, self.flow(given))
            if name in self.constants and layer is not None and layer.kind == "linear" and layer.weight is not None:
                bias = self.constants.value(name, size=layer.weight.shape[1])
                if layer.bias is None and bias is not None and bias.shape == layer.weight.shape[:1]:
                    layer.bias = bias
                    return layer.alone
        return None

    def _combine(self, node: onnx.NodeProto) -> Flow | None:
        """x * weight + y * (1 - weight)."""
        parts = []
        for name in node.input:
            maker = self.nodes.maker(name)
            if maker is None or maker.op_type != "Mul":
                return None
            given, constant = self._split(maker)
            if constant is None or constant.size != 1:
                return None
            parts.append((self.flow(given), constant.astype(np.float32).reshape(())))
        (x, weight), (y, other) = parts
        if not np.isclose(weight + other, 1.0, atol=2e-3):
            return None
        return self._add_operation("combine", node, x, other=y, weight=weight, bias=other)

    def _sub(self, node: onnx.NodeProto) -> Flow | None:
        given, constant = self._split(node)
        flow = self.flow(given)
        if constant is None or constant.size == 1 or flow == NOTHING or self._squared_to_mean(node):
            return None
        return self._add_operation("shift", node, flow, weight=-constant)

    def _squared_to_mean(self, node: onnx.NodeProto) -> bool:
        squares = self.nodes.after(node.output[0])
        return bool(squares) and all(
            square.op_type in ("Pow", "Mul")
            and all(user.op_type == "ReduceMean" for user in self.nodes.after(square.output[0]))
            for square in squares
        )

    def _mul(self, node: onnx.NodeProto) -> Flow | None:
        given, constant = self._split(node)
        if constant is None:
            return self._scaled_integers(node) or self._edges(node)
        flow = self.flow(given)
        if flow == NOTHING:
            return None
        maker = self.nodes.maker(given)
        if maker is not None and maker.op_type == "Sub" and not any(name in self.constants for name in maker.input):
            return self._add_operation("mix", node, flow, weight=constant)
        if constant.size == 1 or (maker is not None and maker.op_type == "DynamicQuantizeLinear"):
            return None  # the latter is the product of an input's and a weight's scales
        users = self.nodes.after(node.output[0])
        sums = bool(users) and all(user.op_type == "ReduceSum" for user in users)
        return self._add_operation("average" if sums else "scale", node, flow, weight=constant)

    def _scaled_integers(self, node: onnx.NodeProto) -> Flow | None:
        """The product of an integer operation's output and the scales of its input and weight."""
        for output, scales in (node.input, reversed(node.input)):
            operation = the_one(self.operations, self.flow(output))
            maker = self.nodes.maker(scales)
            if operation is None or operation.integers is None or operation.integers.scale is not None:
                continue
            scale = self._split(maker)[1] if maker is not None and maker.op_type == "Mul" else None
            if scale is not None:
                operation.integers.scale = scale.reshape(-1)
                return operation.alone
        return None

    def _edges(self, node: onnx.NodeProto) -> Flow | None:
        for output, operand in (node.input, reversed(node.input)):
            flow = self.flow(output)
            operation = the_one(self.operations, flow)
            if operation is not None and operation.kind == "conv" and self.flow(operand) == NOTHING:
                return self._add_operation("edges", node, flow, operand=operand)
        return None

    def _split(self, node: onnx.NodeProto) -> tuple[str, Array | None]:
        """The input of an elementwise node, and its constant with floating-point numbers; None without one."""
        first, second = node.input[:2]
        for given, name in ((first, second), (second, first)):
            constant = self.constants.float(name)
            if constant is not None and (node.op_type != "Sub" or name == second):
                return given, constant
        return first, None


_VISITS: dict[str, Callable[[Skeleton, onnx.NodeProto], Flow | None]] = {
    "Add": Skeleton._add,
    "Conv": Skeleton._conv,
    "ConvInteger": Skeleton._convinteger,
    "DequantizeLinear": Skeleton._dequantizelinear,
    "Gather": Skeleton._gather,
    "Gemm": Skeleton._gemm,
    "If": Skeleton._if,
    "MatMul": Skeleton._matmul,
    "MatMulInteger": Skeleton._matmulinteger,
    "Mul": Skeleton._mul,
    "ReduceMean": Skeleton._reducemean,
    "ScatterElements": Skeleton._scatter,
    "ScatterND": Skeleton._scatter,
    "Size": Skeleton._size,
    "Sub": Skeleton._sub,
}
"""What is done with a node; other nodes are transparent."""
