"""What the exported encoders of Zipformer and Zipformer2 have in common: layers in stacks, and attention weights that
several modules use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from moulin.bundle.onnx_weights.matching import Match
from moulin.bundle.onnx_weights.operation import NOTHING, Flow, Operation, union

if TYPE_CHECKING:
    import onnx

Layer = Callable[[Match, str, Flow], tuple[Flow, int]]
"""From a layer's name and the flow before it to the flow after it, and the number of its heads."""


class Stacks:
    """The numbers of stacks and layers so far. Stacks of one frame rate after each other are told apart by `counts`,
    the layers of each stack in an export's metadata, and where there are none by the shapes of their parameters."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.index = 0
        self._counts = counts

    def is_full(self, layers: int) -> bool:
        """Whether the current stack has no more than these `layers`."""
        return self.index < len(self._counts) and layers >= self._counts[self.index]


def shapes_of(match: Match, prefix: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a layer's parameters, by their names within it."""
    return {
        name.removeprefix(prefix): values.shape for name, values in match.tensors.items() if name.startswith(prefix)
    }


def plain_stacks(match: Match, stacks: Stacks, flow: Flow, layer: Layer) -> list[tuple[Flow, int]]:
    """Stacks at the frame rate of the embedding: the flow after each, and its heads. `layer` takes the parameters of a
    layer with a name (which ends with a dot) behind a flow."""
    found: list[tuple[Flow, int]] = []
    count = 0
    first: dict[str, tuple[int, ...]] = {}
    while not match.candidates(flow, "average"):
        name = f"encoder.encoders.{stacks.index}.layers.{count}."
        flow, heads = layer(match, name, flow)
        shapes = shapes_of(match, name)
        if first and (shapes != first or stacks.is_full(count)):
            stacks.index += 1
            count = 0
            match.rename(name, f"encoder.encoders.{stacks.index}.layers.0.")
        if count == 0:
            first = shapes
            found.append((flow, heads))
        found[-1] = flow, heads
        count += 1
    stacks.index += 1
    return found


def positions_of(match: Match, name: str, weights_in: Operation, values: Flow = NOTHING) -> Operation:
    """The projection of distances that belongs to the attention weights made of `weights_in`: a linear layer fed by
    constants alone, which meets them and `values` before another linear layer."""
    for operation in match.constants():
        if match.candidates(union(weights_in, operation) | values, "linear"):
            match.use(operation)
            match.layer(name, operation, bias=False)
            return operation
    raise match.unmatched(f"'{name}.weight', whose output meets that of '{weights_in.node}', got none")


def heads_of(match: Match, weights_in: Operation) -> int:
    """The number of heads: the third of the four sizes that queries are given before they are multiplied by keys."""
    flow = weights_in.alone
    for node, queries, keys in match.skeleton.products:
        if queries == keys == flow:
            for maker in match.skeleton.nodes.behind(node.input[0]):
                if maker.op_type == "Reshape" and len(sizes := _sizes(match, maker.input[1])) == 4:
                    heads = sizes[2]
                    if heads is not None and heads > 0 and weights_in.width % heads == 0:
                        return heads
    raise match.unmatched(f"a number of heads after '{weights_in.node}', got none")


def _sizes(match: Match, name: str) -> list[int | None]:
    """The sizes of a shape, None for each that the graph computes from its input."""
    constants = match.skeleton.constants
    value = constants.value(name)
    if value is not None:
        return [int(size) for size in value.ravel()]
    maker: onnx.NodeProto | None = match.skeleton.nodes.maker(name) or constants.maker(name)
    if maker is None or maker.op_type != "Concat":
        return []
    sizes = [constants.value(part) for part in maker.input]
    return [None if size is None or size.size != 1 else int(size.ravel()[0]) for size in sizes]
