"""Tables on their way to Ray and back: few rows for each task, and every recording once. No Ray here."""

from __future__ import annotations

from typing import Any

from moulin.bulk.local.tasks import Tasks
from moulin.bulk.pyarrow_here import pa

_MAX_TASK_ROWS = 64
"""Recordings of a task. It is repeated as a whole when its worker dies."""

_TASKS_A_DECODER = 4
"""Tasks for each CPU that decodes, at least: the last ones of a small manifest end together."""


def blocks(rows: Any, decoders: int) -> list[Any]:
    """Tables of a task each: few enough rows for all decoders to have some, those of the same audio together."""
    tasks, tables = Tasks(rows), []
    count = min(_MAX_TASK_ROWS, -(-rows.num_rows // (_TASKS_A_DECODER * decoders)))
    while (task := tasks.next(count)) is not None:
        tables.append(tasks.table(task))
    return tables


def not_in(done: set[str], transcribed: Any) -> Any:
    """The rows of `transcribed` whose ids are not yet in `done`. Adds their ids to `done`."""
    new = []
    for id in transcribed.column("id").to_pylist():
        new.append(id not in done)
        done.add(id)
    return transcribed if all(new) else transcribed.filter(pa.array(new, pa.bool_()))
