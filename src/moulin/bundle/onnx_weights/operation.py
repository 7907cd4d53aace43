"""An operation with parameters, and sets of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from moulin.bundle.onnx_weights.integers import Integers
from moulin.bundle.onnx_weights.model_file import Array

Kind = Literal["input", "linear", "conv", "embedding", "norm", "mix", "combine", "average", "scale", "shift", "edges"]
"""What an operation does to its input x:

input: nothing; it is the graph's own input of features. linear, conv, embedding: the layers of these names. norm: a
mean over channels of squares, from which x is scaled. mix: a + (x - a) * weight, where x and a are both not constant.
combine: x * weight + y * (1 - weight). average: a product with a vector, of which sums are taken. scale, shift: a
product with, or the sum with, a constant of several elements. edges: a product with what is computed from constants and
sizes.
"""

Flow = int
"""A set of operations: bit i for the operation with index i."""

NOTHING: Flow = 0


@dataclass(slots=True)
class Operation:
    """One operation with parameters. `weight` and `bias` are views of the file, or computed from it."""

    index: int
    kind: Kind
    node: str
    """The node's name in the graph, for messages."""
    input: Flow
    output: str
    """The tensor that the node gives."""
    weight: Array | None = None
    """Of linear: [N, K] for K channels to N; of `combine` that of x."""
    bias: Array | None = None
    """Of linear and conv [N]; of `combine` the weight of y."""
    origin: str = ""
    """The initializer with the weight."""
    operand: str = ""
    """Of `edges`: the tensor that the input is multiplied by."""
    other: Flow = NOTHING
    """Of `combine`: the flow of y."""
    attributes: dict[str, Any] = field(default_factory=dict)
    integers: Integers | None = None
    """Instead of `weight`, where the file has integers."""

    @property
    def alone(self) -> Flow:
        """The flow of its output."""
        return 1 << self.index

    @property
    def width(self) -> int:
        """The channels of the output of a linear layer or convolution; 0 for other kinds."""
        return int(self.shape[0]) if self.shape and self.kind in ("linear", "conv") else 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight; () without one."""
        values = self.values
        return () if values is None else values.shape

    @property
    def values(self) -> Array | Integers | None:
        """The weight, in integers or not."""
        return self.weight if self.integers is None else self.integers


def union(*operations: Operation) -> Flow:
    flow = NOTHING
    for operation in operations:
        flow |= operation.alone
    return flow


def the_one(operations: list[Operation], flow: Flow) -> Operation | None:
    """The operation of a flow of exactly one."""
    return operations[flow.bit_length() - 1] if flow and not flow & (flow - 1) else None
