"""Removal of what nothing in a graph uses any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def remove_dead_nodes(model: onnx.ModelProto) -> None:
    """Remove the nodes of `model` whose outputs are not used."""
    graph = model.graph
    while True:
        used = {output.name for output in graph.output} | _read_names(graph)
        alive = [node for node in graph.node if any(output in used for output in node.output)]
        if len(alive) == len(graph.node):
            return
        del graph.node[:]
        graph.node.extend(alive)


def remove_unread_initializers(model: onnx.ModelProto) -> None:
    """Remove the constants of `model` that no node reads."""
    graph = model.graph
    read = _read_names(graph) | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _read_names(graph: onnx.GraphProto) -> set[str]:
    """Every tensor that a node reads, including nodes in the branches of If and the bodies of Loop."""
    names: set[str] = set()
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= _read_names(inner) | {output.name for output in inner.output}
    return names
