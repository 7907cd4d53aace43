"""The nodes of a graph by their inputs and outputs, with those of its branches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from moulin.bundle.onnx_weights.constants import Constants

if TYPE_CHECKING:
    import onnx

_SAME = ("Cast", "Identity", "Dropout")
"""Operators that change no value but for its precision."""


class Nodes:
    """Nodes of the graph `graph`. `constants` fills up while the graph is walked through."""

    def __init__(self, graph: onnx.GraphProto, constants: Constants) -> None:
        self._constants = constants
        self._makers: dict[str, onnx.NodeProto] = {}
        self._users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in _all_nodes(graph):
            for name in node.input:
                self._users[name].append(node)
            for name in node.output:
                self._makers[name] = node

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that computes `name`, through casts and identities."""
        node = self._makers.get(name)
        while node is not None and node.op_type in _SAME:
            node = self._makers.get(node.input[0])
        return node

    def after(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that take the tensor `name`, through casts and identities."""
        found = []
        for node in self._users.get(name, ()):
            found += self.after(node.output[0]) if node.op_type in _SAME else [node]
        return found

    def behind(self, name: str) -> Iterator[onnx.NodeProto]:
        """The nodes that a tensor is computed by, from the last to the first, without those of known constants and of
        sizes."""
        waiting, seen = [name], set()
        while waiting:
            one = waiting.pop()
            node = self._makers.get(one)
            if node is None or one in seen or node.op_type == "Shape" or self._constants.value(one) is not None:
                continue
            seen.add(one)
            yield node
            waiting += list(node.input)
            for graph in branches(node):
                waiting += [output.name for output in graph.output]


def in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of a graph, each after those that it takes its inputs from, as ONNX asks for: onnxruntime's
    quantisation writes them in another order. Nodes of a circle are left out."""
    made_here = {name for node in graph.node for name in node.output}
    missing: dict[int, int] = {}
    waiting: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(graph.node):
        needed = {name for name in _taken(node) if name in made_here}
        missing[index] = len(needed)
        for name in needed:
            waiting[name].append(index)
    ready = [index for index, count in missing.items() if not count]
    ordered = []
    while ready:
        node = graph.node[heappop(ready)]
        ordered.append(node)
        for name in node.output:
            for index in waiting.pop(name, ()):
                missing[index] -= 1
                if not missing[index]:
                    heappush(ready, index)
    return ordered


def branches(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs within a node."""
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def _taken(node: onnx.NodeProto) -> Iterator[str]:
    """The inputs of a node, and what its branches take from outside."""
    yield from node.input
    for graph in branches(node):
        for inner in graph.node:
            yield from _taken(inner)
        yield from (output.name for output in graph.output)


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in branches(node):
            yield from _all_nodes(inner)
