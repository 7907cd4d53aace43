"""Tasks: every row once, together where they share audio, and alone when processes end over them."""

from __future__ import annotations

import numpy as np

from moulin.bulk.local.tasks import Task, Tasks
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import RECORDINGS


def whole(count: int) -> Tasks:
    return Tasks(pa.Table.from_pylist([{"id": str(n), "path": f"{n}.wav"} for n in range(count)], RECORDINGS))


def windows(*runs: int) -> Tasks:
    rows = [
        {"id": f"{run}-{n}", "path": f"{run}.wav", "offset_sec": float(n), "window_sec": 1.0}
        for run, count in enumerate(runs)
        for n in range(count)
    ]
    return Tasks(pa.Table.from_pylist(rows, RECORDINGS))


def taken(tasks: Tasks, max_rows: int) -> list[list[int]]:
    found = []
    while (task := tasks.next(max_rows)) is not None:
        found.append(task.rows.tolist())
    return found


def test_rows_come_in_order() -> None:
    tasks = whole(7)
    assert taken(tasks, 3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert tasks.is_empty
    assert tasks.table(Task(np.array([4, 6]))).column("id").to_pylist() == ["4", "6"]
    assert taken(whole(0), 3) == []


def test_windows_of_the_same_audio_stay_together() -> None:
    assert taken(windows(2, 5, 1, 1), 3) == [[0, 1, 2, 3, 4, 5, 6], [7, 8]]


def test_what_a_process_had_is_given_out_again_in_smaller_parts() -> None:
    tasks = whole(5)
    task = tasks.next(5)
    assert task is not None
    assert tasks.put_back(task, np.array([2, 3, 4]), "SIGKILL") == []
    assert not tasks.is_empty
    assert taken(tasks, 5) == [[2], [3], [4]]

    tasks = windows(2, 3)
    task = tasks.next(9)
    assert task is not None
    assert tasks.put_back(task, task.rows, "SIGSEGV") == []
    first, second = tasks.next(9), tasks.next(9)
    assert first is not None
    assert second is not None
    assert [first.rows.tolist(), second.rows.tolist()] == [[0, 1], [2, 3, 4]]
    tasks.put_back(second, second.rows[1:], "SIGSEGV")
    assert taken(tasks, 9) == [[3], [4]]


def test_a_recording_that_crashes_its_decoder_is_not_tried_again() -> None:
    tasks = whole(1)
    task = tasks.next(5)
    assert task is not None
    assert tasks.put_back(task, task.rows, "SIGSEGV") == [(0, "SIGSEGV")]
    assert tasks.is_empty


def test_a_killed_process_says_little_of_its_recording() -> None:
    tasks = whole(2)
    task = tasks.next(5)
    assert task is not None
    refused = tasks.put_back(task, np.array([1]), "SIGKILL")
    for _ in range(2):
        assert refused == []
        again = tasks.next(5)
        assert again is not None
        assert again.rows.tolist() == [1]
        refused = tasks.put_back(again, again.rows, "SIGKILL")
    assert refused == [(1, "SIGKILL")]
    assert tasks.put_back(task, np.array([], int), "SIGKILL") == []
