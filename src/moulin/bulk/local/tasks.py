"""Rows that are not done yet, as tasks for processes that decode. No processes, files or clocks."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moulin.arrays import Ints
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.runs import run_begins

FIRST_ROWS, MAX_ROWS = 8, 512
"""Recordings of a task, before their length is known and at most."""

STALLED_SEC = 1800.0
"""The time after which a process that says nothing is killed."""

MAX_TABLE_DEATHS = 2
"""Engines that may end over one table of audio, or one recording."""

_MAX_DEATHS = 3
"""Processes that may be killed over one recording. Others may have had the kernel's memory or an operator in mind."""

_BY_THE_RECORDING = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGXCPU", "SIGTRAP")


@dataclass(frozen=True, slots=True)
class Task:
    """Rows of the pending table, by number."""

    rows: Ints
    deaths: int = 0
    """Processes that have ended over it, when it was one recording."""


class Tasks:
    """The pending rows of a job, in order. Rows that share their audio stay together: they are decoded in one pass."""

    def __init__(self, pending: Any) -> None:
        """`pending` is a table of the schema RECORDINGS."""
        self.pending = pending
        self._begins = run_begins(pending)
        self._at = 0
        self._again: deque[Task] = deque()

    @property
    def is_empty(self) -> bool:
        return self._at >= self.pending.num_rows and not self._again

    def next(self, max_rows: int) -> Task | None:
        """The next task, of about `max_rows` rows; None where none is left for now."""
        if self._again:
            return self._again.popleft()
        if self._at >= self.pending.num_rows:
            return None
        begin, end = self._at, min(self._at + max(1, max_rows), self.pending.num_rows)
        if self._begins is not None and end < self.pending.num_rows:
            end = int(self._begins[np.searchsorted(self._begins, end)])
        self._at = end
        return Task(np.arange(begin, end))

    def table(self, task: Task) -> Any:
        """The recordings of a task."""
        first, count = int(task.rows[0]), len(task.rows)
        if int(task.rows[-1]) - first == count - 1:  # without a copy of what may be millions of rows
            return self.pending.slice(first, count)
        return self.pending.take(pa.array(task.rows))

    def put_back(self, task: Task, missing: Ints, how: str) -> list[tuple[int, str]]:
        """A process has ended, `how`, with the rows `missing` of `task` not delivered.

        They become smaller tasks, down to single rows. Returns rows that are not tried again, with the reason.
        """
        if not len(missing):
            return []
        if len(missing) == 1:
            deaths = task.deaths + 1 if len(task.rows) == 1 else 1
            by_it = how in _BY_THE_RECORDING and len(task.rows) == 1
            if by_it or deaths >= _MAX_DEATHS:
                return [(int(missing[0]), how)]
            self._again.append(Task(missing, deaths))
            return []
        self._again.extend(Task(rows) for rows in self._parts(missing))
        return []

    def _parts(self, rows: Ints) -> Sequence[Ints]:
        """Rows by their audio or, where it is one, one by one."""
        if self._begins is not None:
            run = np.searchsorted(self._begins, rows, side="right")
            parts = np.split(rows, np.flatnonzero(np.diff(run)) + 1)
            if len(parts) > 1:
                return parts
        return np.split(rows, np.arange(1, len(rows)))


def crashed(path: str, how: str) -> str:
    """The error of a recording over which processes have ended."""
    if how == signal.SIGXCPU.name:
        return f"{path} cannot be decoded: the decoder needed more CPU time than the audio is long"
    if how == signal.SIGKILL.name:
        return f"{path} cannot be decoded: the decoder was killed, perhaps because memory was short"
    return f"{path} cannot be decoded: the decoder crashed on it ({how})"


def engine_ended(path: str, how: str) -> str:
    """The error of a recording over which engines have ended."""
    return f"The engine ended on {path} ({how})"
