"""Which graph a step takes while not all are captured."""

from __future__ import annotations

import pytest

from moulin.gpu import step_graphs
from moulin.gpu.graphs import bucket_rows
from moulin.gpu.step_graphs import StepGraphs, first_sizes, step_sizes


class Graph:
    """A graph that was captured without a card."""

    def __init__(self) -> None:
        self.replays = 0

    def pool(self) -> str:
        return "memory"

    def replay(self) -> None:
        self.replays += 1


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The pools of all captures so far."""
    pools: list[object] = []

    def capture(run, pool):  # type: ignore[no-untyped-def]
        pools.append(pool)
        return Graph(), run()

    monkeypatch.setattr(step_graphs, "capture", capture)
    return pools


def compute(rows: int) -> str:
    return f"{rows} rows"


@pytest.mark.parametrize("largest", [1, 2, 7, 16, 1024, 4096])
def test_sizes(largest: int) -> None:
    sizes, first = step_sizes(largest), first_sizes(largest)
    assert sizes == sorted({bucket_rows(rows) for rows in range(1, largest + 1)}, reverse=True)
    assert first == sorted(first, reverse=True)
    assert (first[0], first[-1]) == (largest, 1)
    assert set(first) <= set(sizes)
    assert len(first) <= 8


def test_a_step_takes_the_smallest_graph_with_room(captured: list[object]) -> None:
    graphs: StepGraphs[str] = StepGraphs(64)
    graphs.capture_first(compute)
    assert captured == [None, "memory", "memory", "memory"]
    assert [graphs.size_for(rows) for rows in (1, 2, 4, 5, 16, 17, 64)] == [1, 4, 4, 16, 16, 64, 64]
    assert graphs.replay(16) == "16 rows"


def test_what_steps_lack_is_captured_first(captured: list[object]) -> None:
    graphs: StepGraphs[str] = StepGraphs(64)
    graphs.capture_first(compute)
    for rows in (17, 18, 9):
        graphs.size_for(rows)
    graphs.capture_next(compute)
    assert graphs.size_for(18) == 20
    graphs.capture_next(compute)
    assert graphs.size_for(9) == 10
    graphs.capture_next(compute)
    assert graphs.size_for(50) == 56
    while graphs.lacks_any:
        graphs.capture_next(compute)
    assert [graphs.size_for(rows) for rows in range(1, 65)] == [bucket_rows(rows) for rows in range(1, 65)]
    assert len(captured) == len(step_sizes(64))
    graphs.capture(10, compute)
    assert len(captured) == len(step_sizes(64))
