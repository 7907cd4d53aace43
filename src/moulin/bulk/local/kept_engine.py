"""A process with the model for a caller that waits for it: an end costs the recording that ended it."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from typing import Any

from moulin.bulk.local.channel import copied_table, object_file
from moulin.bulk.local.child import Child
from moulin.bulk.local.losses import Losses
from moulin.bulk.local.tasks import MAX_TABLE_DEATHS, engine_ended
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import failed_row, transcribed_table
from moulin.bulk.transcriber import Transcriber
from moulin.errors import EngineError

logger = logging.getLogger(__name__)

ENGINE = "moulin.bulk.local.engine_process"
"""The module of the process."""


class KeptEngine:
    """A `Transcriber` in a process of its own, which is started again when it has ended.

    A table over which two processes end goes to them row by row, and a row with which they end has an error.
    """

    def __init__(self, transcriber: Transcriber) -> None:
        self._transcriber = transcriber
        self._child: Child | None = None
        self._is_ready = False
        self._losses = Losses("engine")

    def start(self) -> None:
        """Start the process, which loads the model; the first table waits for it."""
        if self._child is None:
            self._child, self._is_ready = Child(ENGINE), False
            self._child.send_object(object_file(self._transcriber))

    def __call__(self, decoded: Any) -> Any:
        """A table of the schema DECODED to one of the schema TRANSCRIBED, row by row.

        Raises EngineError where the model cannot be used, or processes end again and again.
        """
        done: list[Any] = []
        waiting: deque[tuple[Any, int]] = deque([(decoded, 0)])
        while waiting:
            table, deaths = waiting.popleft()
            answer = self._answer(table)
            if not isinstance(answer, str):
                self._losses.none()
                done.append(answer)
                continue
            self._losses.note(answer)
            logger.warning("The engine on %s has ended (%s) and is started again", self._transcriber.device, answer)
            if deaths + 1 < MAX_TABLE_DEATHS:
                waiting.appendleft((table, deaths + 1))
            elif table.num_rows > 1:
                rows = [(table.take(pa.array([row])), MAX_TABLE_DEATHS - 1) for row in range(table.num_rows)]
                waiting.extendleft(reversed(rows))
            else:
                self._losses.none()
                row = table.select(["id", "path"]).to_pylist()[0]
                done.append(transcribed_table([failed_row(**row, error=engine_ended(row["path"], answer))]))
        return pa.concat_tables(done)

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.ended()

    def _answer(self, table: Any) -> Any | str:
        """The transcripts of a table, or how the process has ended over it."""
        self.start()
        assert self._child is not None
        child, is_sent = self._child, False
        while True:
            if self._is_ready and not is_sent:
                is_sent = True
                with contextlib.suppress(OSError):  # it has ended: its closed channel says so
                    child.channel.send_table({"table": 0}, table)
            message = child.channel.receive()
            if message is None:
                self._child = None
                return child.ended()
            if "fatal" in message.fields:
                raise EngineError(message.fields["fatal"], hint=message.fields["hint"])
            if message.file is not None:
                return copied_table(message)
            self._is_ready = True
