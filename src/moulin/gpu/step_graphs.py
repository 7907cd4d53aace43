"""Steps of streams as CUDA graphs, one for each number of rows that steps are filled up to.

A few sizes are captured at the start, each several times as large as the next; the others while streams are served. A
step takes the smallest graph that has room for it. Larger sizes come first: smaller ones then find room in the memory
that these have between their kernels, which all graphs share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import torch

from moulin.gpu.graphs import bucket_rows, capture, most_rows

Out = TypeVar("Out")

_STRIDE = 4
"""Each size that is captured at the start is so many times as large as the next."""


def step_sizes(max_rows: int) -> list[int]:
    """The numbers of rows that steps are filled up to, the largest first."""
    sizes = [1]
    while sizes[-1] < max_rows:
        sizes.append(bucket_rows(sizes[-1] + 1))
    return sizes[::-1]


def first_sizes(max_rows: int) -> list[int]:
    """Those of `step_sizes` that are captured at the start."""
    sizes = [max_rows]
    while sizes[-1] > 1:
        sizes.append(most_rows(sizes[-1] // _STRIDE))
    return sizes


class StepGraphs(Generic[Out]):
    """Graphs of steps. Not thread-safe but for `lacks_any`.

    What captures takes `compute`, which launches a step of a number of rows that changes no stream, and is called on
    the stream on which the graphs will run.
    """

    def __init__(self, max_rows: int) -> None:
        """`max_rows` is of `step_sizes`."""
        self._lacking = step_sizes(max_rows)
        self._first = first_sizes(max_rows)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Out]] = {}
        self._wanted: Counter[int] = Counter()
        self._pool: Any = None

    @property
    def lacks_any(self) -> bool:
        """Whether any size has no graph yet."""
        return bool(self._lacking)

    def capture_first(self, compute: Callable[[int], Out]) -> None:
        """Capture the graphs that steps of any size need."""
        for rows in self._first:
            self.capture(rows, compute)

    def capture_next(self, compute: Callable[[int], Out]) -> None:
        """Capture another graph: of the size that steps have lacked most often, else of the largest."""
        wanted = [rows for rows, _ in self._wanted.most_common() if rows in self._lacking]
        self.capture((wanted or self._lacking)[0], compute)

    def capture(self, rows: int, compute: Callable[[int], Out]) -> None:
        """Capture the graph of `rows`, unless it is there."""
        if rows in self._graphs:
            return
        step = partial(compute, rows)
        step()  # loads the kernels, and finds the fastest products
        self._graphs[rows] = capture(step, self._pool)
        self._pool = self._graphs[rows][0].pool()
        self._lacking.remove(rows)

    def size_for(self, rows: int) -> int:
        """The size of the graph that a step of `rows` takes."""
        size = bucket_rows(rows)
        if size in self._graphs:
            return size
        self._wanted[size] += 1
        return min(size for size in self._graphs if size >= rows)

    def replay(self, size: int) -> Out:
        """Run the step of a size that has a graph; the result is overwritten by the next one."""
        graph, out = self._graphs[size]
        graph.replay()
        return out
