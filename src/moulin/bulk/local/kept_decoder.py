"""A decoding process for a caller that waits for it: a crash costs the recording that crashed it, never the caller."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from moulin.bulk.local.channel import copied_table, object_file
from moulin.bulk.local.child import Child
from moulin.bulk.local.losses import Losses
from moulin.bulk.local.settings import DecodingSettings
from moulin.bulk.local.tasks import STALLED_SEC, Task, Tasks, crashed
from moulin.bulk.schema import failed_table

DECODER = "moulin.bulk.local.decoding_process"
"""The module of the process."""


class KeptDecoder:
    """`decode` in a process of its own, which is started when it is needed and again when it has ended."""

    def __init__(self, settings: DecodingSettings) -> None:
        self._settings = settings
        self._child: Child | None = None
        self._losses = Losses("decoder")

    def __call__(self, recordings: Any) -> Iterator[Any]:
        """A table of the schema RECORDINGS to tables of the schema DECODED, every recording once.

        The next table is decoded when it is asked for. Raises EngineError where processes end again and again.
        """
        tasks = Tasks(recordings)
        while (task := tasks.next(recordings.num_rows)) is not None:
            delivered: set[str] = set()
            ended = None
            for answer in self._decoded(tasks.table(task)):
                if isinstance(answer, str):
                    ended = answer
                elif answer.num_rows:
                    self._losses.none()
                    delivered.update(answer.column("id").to_pylist())
                    yield answer
            if ended is not None:
                yield from self._left_over(tasks, task, delivered, ended)

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.ended()

    def _decoded(self, recordings: Any) -> Iterator[Any | str]:
        """Tables, and how the process has ended if it has."""
        child = self._child = self._child or self._started()
        is_done = False
        try:
            with contextlib.suppress(OSError):  # it has ended: its closed channel says so
                child.channel.send_table({"task": True}, recordings)
            while (message := self._heard(child)) is not None:
                if message.file is None:
                    continue
                yield copied_table(message)
                if message.fields["last"]:
                    is_done = True
                    return
                with contextlib.suppress(OSError):
                    child.channel.send({"go": True})
            self._child, is_done = None, True
            yield child.ended()
        finally:
            if not is_done:  # nobody wants the rest
                self.close()

    def _heard(self, child: Child) -> Any:
        """The next message, or None when the process has ended; one that says nothing for long is killed."""
        if not select.select([child.channel], [], [], STALLED_SEC)[0]:
            child.kill()
        return child.channel.receive()

    def _started(self) -> Child:
        child = Child(DECODER)
        child.send_object(object_file(self._settings))
        return child

    def _left_over(self, tasks: Tasks, task: Task, delivered: set[str], how: str) -> Iterator[Any]:
        """Put what was not delivered back; recordings that are not tried again come out with an error."""
        ids = tasks.table(task).column("id").to_pylist()
        undelivered = np.array([id not in delivered for id in ids], bool)
        refused = tasks.put_back(task, task.rows[undelivered], how)
        if not refused:
            self._losses.note(how)
        for row, reason in refused:
            yield failed_table(tasks.pending.slice(row, 1), partial(crashed, how=reason))
