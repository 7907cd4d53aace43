"""The context graphs of a batch's rows: the server's and the request's, either of which may be none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Bools, Doubles, Ints, Ints32
from moulin.decoding.context_graph import EMPTY, ContextGraph, ContextGraphs

Graphs = tuple[ContextGraph | None, ContextGraph | None]
"""Of one row: the server's and the request's. Their bonuses add."""
NO_GRAPHS: Graphs = (None, None)


@dataclass(slots=True)
class _Column:
    """The server's graphs of all rows, or the requests'."""

    index: int
    arena: ContextGraphs
    roots: Ints
    """[N * P]: the root of each hypothesis's graph, an empty one for rows without."""
    states: Ints
    """[N * P]: where each hypothesis is in the arena."""


class RowGraphs:
    """The graphs of N rows, each distinct one once, and the states of P hypotheses a row. False where no row has any
    graph."""

    def __init__(self, graphs: NDArray[np.object_], states: Ints32) -> None:
        """`graphs` [N, 2] are ContextGraph or None; `states` [N, P, 2] are numbered within each."""
        self._shape = states.shape
        self._first_places = np.arange(len(states))[:, None] * states.shape[1]
        columns = (_column(index, graphs[:, index].tolist(), states[:, :, index]) for index in range(len(states.T)))
        self._columns = [column for column in columns if column is not None]

    def __bool__(self) -> bool:
        return bool(self._columns)

    def advance(self, parents: Ints, tokens: Ints, emitted: Bools) -> Doubles:
        """Go on in the first M rows: each hypothesis is now the one in place `parents` [M, P], with one of `tokens`
        [M, P] more where that is `emitted`. Returns the bonuses of these tokens [M, P]."""
        # `take` and `nonzero` rather than indexing and NumPy's functions: the arrays are short, and calls are the cost.
        sources = (self._first_places[: len(parents)] + parents).ravel()
        where = emitted.ravel().nonzero()[0]
        chosen, bonuses = tokens.ravel().take(where), np.zeros(emitted.size)
        for column in self._columns:
            states = column.states.take(sources)
            gained, states[where] = column.arena.advance(column.roots.take(where), states.take(where), chosen)
            column.states[: len(sources)] = states
            bonuses[where] += gained
        return bonuses.reshape(emitted.shape)

    def held(self) -> Doubles:
        """The bonuses [N, P] of phrases that have begun and are not complete."""
        total = np.zeros(self._shape[:2])
        for column in self._columns:
            total += column.arena.held[column.states].reshape(total.shape)
        return total

    def states(self) -> Ints32:
        """The states [N, P, 2], numbered within each graph; 0 without."""
        found = np.zeros(self._shape, np.int32)
        for column in self._columns:
            found[:, :, column.index] = (column.states - column.roots).reshape(self._shape[:2])
        return found


def held_behind(graphs: Graphs, texts: Sequence[Sequence[int]]) -> Doubles:
    """The bonuses [M] of phrases that have begun and are not complete behind each of M `texts`, the tokens of
    hypotheses in a search with `graphs`."""
    total, lengths = np.zeros(len(texts)), np.array([len(text) for text in texts])
    tokens = np.zeros((len(texts), lengths.max(initial=0)), np.int64)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = text
    for graph in graphs:
        if graph is not None:
            arena, states = graph.alone, np.zeros(len(texts), np.int64)
            for at in range(tokens.shape[1]):
                on = np.flatnonzero(lengths > at)
                _, states[on] = arena.advance(np.zeros(len(on), np.int64), states[on], tokens[on, at])
            total += arena.held[states]
    return total


def _column(index: int, graphs: list[Any], states: Ints32) -> _Column | None:
    distinct = {id(graph): graph for graph in graphs if graph is not None}
    if not distinct:
        return None
    numbers = {key: number for number, key in enumerate(distinct)}
    # The server's graph, which may be large, is the only one of its column.
    arena = next(iter(distinct.values())).alone if len(distinct) == 1 else ContextGraphs.of([*distinct.values(), EMPTY])
    roots = arena.roots[[numbers.get(id(graph), len(numbers)) for graph in graphs]]
    of_each = np.repeat(roots, states.shape[1])
    return _Column(index, arena, of_each, of_each + states.ravel())
