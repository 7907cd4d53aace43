"""Removal of what nothing in a graph uses any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def remove_dead_nodes(model: onnx.ModelProto) -> None:
    """Remove the nodes of `model` whose outputs are not used."""
    graph = model.graph
    while True:
        used = {output.name for output in graph.output} | _read_in(graph)
        alive = [node for node in graph.node if any(output in used for output in node.output)]
        if len(alive) == len(graph.node):
            return
        del graph.node[:]
        graph.node.extend(alive)


def remove_unread_initializers(model: onnx.ModelProto) -> None:
    """Remove the constants of `model` that no node reads."""
    graph = model.graph
    read = _read_in(graph) | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def read_names(node: onnx.NodeProto) -> set[str]:
    """Every tensor that `node` reads, those in the branches of If and the bodies of Loop among them."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            names |= _read_in(inner) | {output.name for output in inner.output}
    return names


def _read_in(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in read_names(node)}
