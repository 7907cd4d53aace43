"""Graphs come and go in the arena; what a batch needs is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from moulin.decoding.context_graph import ContextGraph
from moulin.gpu.arena import AutomatonArena
from moulin.gpu.automata import Automaton


def graph(seed: int, phrases: int = 3) -> ContextGraph:
    """Random phrases of two tokens."""
    drawn = np.random.default_rng(seed).integers(1, 1000, (phrases, 2)).tolist()
    return ContextGraph.of({tuple(phrase): 1.0 for phrase in drawn})


def rows_of(*graphs: ContextGraph | None, server: ContextGraph | None = None) -> NDArray[np.object_]:
    found = np.full((len(graphs), 2), None)
    found[:, 0] = server
    for row, one in enumerate(graphs):
        found[row, 1] = one
    return found


def check(arena: AutomatonArena, root: int, graph: ContextGraph) -> None:
    """The tables have `graph` at `root`."""
    for column, values in zip(arena.tables, Automaton.of_context_graph(graph).columns, strict=False):
        assert isinstance(column, torch.Tensor)
        np.testing.assert_array_equal(column[root : root + len(values)].cpu().numpy(), values)


class Moment:
    def __init__(self) -> None:
        self.waited = 0

    def wait(self) -> None:
        self.waited += 1


def test_equal_graphs_are_there_once(device: torch.device) -> None:
    server, arena_rows = graph(0, 20), 40
    arena = AutomatonArena(device, rows=arena_rows, server=server)
    one, same, other = graph(1), graph(1), graph(2)
    roots = arena.place(rows_of(one, None, same, other, server, server=server))
    assert len(set(roots[:, 0].tolist())) == 1
    assert roots[1, 1] == 0, "the empty one"
    assert roots[0, 1] == roots[2, 1] != roots[3, 1]
    assert roots[4, 1] == roots[4, 0], "the server's, which a request has too"
    for root, placed in zip(roots[[0, 3, 0], [1, 1, 0]].tolist(), (one, other, server), strict=True):
        check(arena, root, placed)
    assert arena.place(rows_of(None, None)).tolist() == [[0, 0]] * 2
    assert arena.tables.first_arcs[:2].tolist() == [0, 0]


def test_any_number_of_graphs_in_the_same_memory(device: torch.device) -> None:
    """Batches of new and of known graphs, of different sizes: each is whole when it is used, and addresses stay."""
    server = graph(0, 50)
    arena = AutomatonArena(device, rows=300, server=server)
    addresses = [part.data_ptr() for part in arena.tables if isinstance(part, torch.Tensor)]
    random = np.random.default_rng(0)
    copied, used = 0, 0
    copy = arena._copy

    def counting(graphs: list[ContextGraph], begins: list[int]) -> None:
        nonlocal copied
        copied += len(graphs)
        copy(graphs, begins)

    arena._copy = counting  # type: ignore[assignment, method-assign]
    for number in range(300):
        seeds = [*random.integers(1, 8, 3).tolist(), *(100 + 3 * number + np.arange(3)).tolist()]
        some = [graph(seed, 1 + seed % 17) for seed in seeds]
        roots = arena.place(rows_of(*some, server=server))
        for root, placed in zip(roots[:, 1].tolist(), some, strict=True):
            check(arena, root, placed)
        used += len(set(seeds))
    check(arena, int(roots[0, 0]), server)
    assert 900 <= copied < used, "known ones are not copied again and again"
    assert len(arena._placed) == len(arena._ring) < 60
    assert [part.data_ptr() for part in arena.tables if isinstance(part, torch.Tensor)] == addresses


def test_a_batch_that_fits_fits_however_the_others_lie(device: torch.device) -> None:
    arena = AutomatonArena(device, rows=100)
    for seed in range(7):
        arena.place(rows_of(graph(seed, 6)))
    some = [graph(5, 6), graph(100, 14), graph(101, 14)]
    sizes = [len(one) + 1 for one in some]
    assert 70 < sum(sizes) <= 100
    roots = arena.place(rows_of(*some))
    for root, placed in zip(roots[:, 1].tolist(), some, strict=True):
        check(arena, root, placed)
    with pytest.raises(ValueError, match="at most 100 rows together"):
        arena.place(rows_of(*some, graph(102, 14)))
    roots = arena.place(rows_of(*some))
    for root, placed in zip(roots[:, 1].tolist(), some, strict=True):
        check(arena, root, placed)


def test_memory_that_is_in_use_is_waited_for(device: torch.device) -> None:
    arena = AutomatonArena(device, rows=50)
    first, second = Moment(), Moment()
    arena.place(rows_of(graph(0, 10)), first)
    arena.place(rows_of(graph(1, 10)), second)
    assert (first.waited, second.waited) == (0, 0)
    arena.place(rows_of(graph(2, 10)), Moment())
    assert (first.waited, second.waited) == (1, 0)
    arena.place(rows_of(graph(1, 10)), last := Moment())
    arena.place(rows_of(graph(3, 20)))
    assert (second.waited, last.waited) == (0, 1)
