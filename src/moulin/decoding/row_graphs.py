"""The context graphs of a batch's rows: the server's and the request's, either of which may be none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Bools, Doubles, Ints, Ints32
from moulin.decoding.context_graph import EMPTY, ContextGraph, ContextGraphs

Graphs = tuple[ContextGraph | None, ContextGraph | None]
"""Of one row: the server's and the request's. Their bonuses add."""
NO_GRAPHS: Graphs = (None, None)


@dataclass(frozen=True, slots=True)
class _Column:
    """The server's graphs of all rows, or the requests'."""

    index: int
    arena: ContextGraphs
    numbers: Ints
    """[N]: each row's graph in the arena; an empty one for rows without."""


class RowGraphs:
    """The graphs of N rows, each distinct one once. False where no row has any."""

    def __init__(self, graphs: NDArray[np.object_]) -> None:
        """`graphs` [N, 2] are ContextGraph or None."""
        columns = (_column(index, graphs[:, index].tolist()) for index in range(graphs.shape[1]))
        self._columns = [column for column in columns if column is not None]

    def __bool__(self) -> bool:
        return bool(self._columns)

    def advance(self, states: Ints32, tokens: Ints, emitted: Bools, scores: Doubles) -> None:
        """Add the bonuses of `tokens` [M, P], where they are `emitted`, to `scores` [M, P], and change the `states`
        [M, P, 2] of these hypotheses; the rows are the first M."""
        rows, places = np.nonzero(emitted)
        if not rows.size:
            return
        chosen = tokens[rows, places]
        for column in self._columns:
            at = (rows, places, column.index)
            bonuses, states[at] = column.arena.advance(column.numbers[rows], states[at], chosen)
            scores[rows, places] += bonuses

    def held(self, states: Ints32) -> Doubles:
        """The bonuses [N, P] of phrases that have begun in `states` [N, P, 2] and are not complete."""
        total = np.zeros(states.shape[:2])
        for column in self._columns:
            total += column.arena.held_by(column.numbers[:, None], states[:, :, column.index])
        return total


def _column(index: int, graphs: list[Any]) -> _Column | None:
    distinct = {id(graph): graph for graph in graphs if graph is not None}
    if not distinct:
        return None
    places = {key: place for place, key in enumerate(distinct)}
    arena = next(iter(distinct.values())).alone if len(distinct) == 1 else ContextGraphs.of([*distinct.values(), EMPTY])
    return _Column(index, arena, np.array([places.get(id(graph), len(places)) for graph in graphs]))
