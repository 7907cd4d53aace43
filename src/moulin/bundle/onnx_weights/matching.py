"""Finding of a network's layers in a skeleton, each by what feeds it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from moulin.bundle.onnx_weights.integers import Integers
from moulin.bundle.onnx_weights.model_file import Array
from moulin.bundle.onnx_weights.operation import NOTHING, Flow, Kind, Operation
from moulin.bundle.onnx_weights.skeleton import Skeleton
from moulin.errors import BundleError
from moulin.quoting import quoted


class UnmatchedGraphError(BundleError):
    """Some weights of the graph are not recognised, or could be two; the message names the node or parameter."""


class Match:
    """The operations of a skeleton that have been recognised, and the parameters in them under Icefall's names."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self.tensors: dict[str, Array | Integers] = {}
        self._used: set[int] = set()
        self._fed_by: dict[Flow, list[Operation]] = defaultdict(list)
        for operation in skeleton.operations:
            self._fed_by[operation.input].append(operation)

    # ------------------------------------------------------------------------------------------- finding of operations

    def candidates(self, flow: Flow, *kinds: Kind) -> list[Operation]:
        """The unused operations of `kinds` that `flow` feeds, and nothing else."""
        found = self._fed_by.get(flow, ())
        return [operation for operation in found if operation.index not in self._used and operation.kind in kinds]

    def constants(self) -> list[Operation]:
        """The linear layers that constants alone feed. One may be of several layers, where their weights are the same
        and an optimiser computes it once."""
        return [operation for operation in self._fed_by.get(NOTHING, ()) if operation.kind == "linear"]

    def find(self, what: str, flow: Flow, *kinds: Kind) -> Operation:
        """The only one of `candidates`, now used. Raises UnmatchedGraphError, which names the parameters `what`."""
        return self.only(what, flow, self.candidates(flow, *kinds), kinds)

    def only(self, what: str, flow: Flow, found: list[Operation], kinds: tuple[Kind, ...]) -> Operation:
        if len(found) != 1:
            got = ", ".join(quoted(operation.node) for operation in found[:3]) or "none"
            raise self.unmatched(
                f"'{what}' as the only {' or '.join(kinds)} fed by {self.skeleton.names(flow)}, got {got}"
            )
        self._used.add(found[0].index)
        return found[0]

    def pair(self, first: str, second: str, flow: Flow) -> tuple[Operation, Operation]:
        """Two linear layers after each other: the first fed by `flow`, the second by the first alone."""
        found = [
            operation for operation in self.candidates(flow, "linear") if self.candidates(operation.alone, "linear")
        ]
        up = self.only(first, flow, found, ("linear",))
        return up, self.find(second, up.alone, "linear")

    def use(self, operation: Operation) -> None:
        self._used.add(operation.index)

    def unmatched(self, expected: str) -> UnmatchedGraphError:
        return UnmatchedGraphError(f"Expected {self.skeleton.file.file} to have {expected}")

    # ------------------------------------------------------------------------------------------------- their parameters

    def layer(self, name: str, operation: Operation, *, bias: bool = True) -> None:
        """Take `name`.weight and `name`.bias from a linear layer or a convolution. A missing bias is zero: exporters
        leave out such ones."""
        self.take(f"{name}.weight", self.weight(operation))
        if bias:
            none = np.zeros(operation.width, np.float32)
            self.take(f"{name}.bias", none if operation.bias is None else operation.bias)
        elif operation.bias is not None and np.any(operation.bias):
            raise self.unmatched(f"no bias of '{name}', got {quoted(operation.node)}")

    def rename(self, before: str, after: str) -> None:
        """Rename parameters: where a name begins with `before`, it now begins with `after`."""
        for name in [name for name in self.tensors if name.startswith(before)]:
            self.tensors[after + name.removeprefix(before)] = self.tensors.pop(name)

    def weight(self, operation: Operation) -> Array | Integers:
        """The weight of a layer. Raises UnmatchedGraphError for integers of an unknown scale."""
        values = operation.values
        if values is None or (isinstance(values, Integers) and values.scale is None):
            raise self.unmatched(f"a known quantisation of {quoted(operation.origin)} in {quoted(operation.node)}")
        return values

    def take(self, name: str, values: Array | Integers) -> None:
        self.tensors[name] = values if isinstance(values, Integers) else np.asarray(values)

    def finish(self) -> Mapping[str, Array | Integers]:
        """The parameters. Raises UnmatchedGraphError where operations are left over: the network does something else
        than what is known of its family."""
        for operation in self.skeleton.operations:
            if operation.index not in self._used and operation.kind != "input":
                what = f", with the weight {quoted(operation.origin)}" if operation.origin else ""
                raise self.unmatched(f"no {operation.kind} {quoted(operation.node)}{what}")
        return self.tensors
