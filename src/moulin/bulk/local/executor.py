"""The executor of one machine: rows go to processes that decode, their audio to engines, transcripts into parts.

    rows ─▶ decoders ─▶ ready tables ─▶ engines ─▶ output
             wait where too many tables are ready

One thread, which waits for messages. Whatever process ends, what it had is given to another: a table of audio stays in
memory until its transcripts are here.
"""

from __future__ import annotations

import logging
import os
import selectors
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from moulin.bulk.executor import Output
from moulin.bulk.local.channel import Message, copied_table, object_file, read_table, table_file
from moulin.bulk.local.child import Child
from moulin.bulk.local.engine_process import TABLES_AT_ONCE
from moulin.bulk.local.kept_decoder import DECODER
from moulin.bulk.local.kept_engine import ENGINE
from moulin.bulk.local.losses import Losses
from moulin.bulk.local.settings import ExecutorSettings, rows_at_least
from moulin.bulk.local.tasks import (
    FIRST_ROWS,
    MAX_ROWS,
    MAX_TABLE_DEATHS,
    STALLED_SEC,
    Task,
    Tasks,
    crashed,
    engine_ended,
)
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import failed_row, transcribed_table
from moulin.errors import EngineError

logger = logging.getLogger(__name__)


_LOOK_SEC = 0.2
"""How often the executor looks at the clock and whether it is to stop, at least."""


@dataclass(eq=False, slots=True)
class _Table:
    """Decoded audio, in a memory file."""

    file: int
    rows: int
    deaths: int = 0
    """Engines that have ended while they had it."""


@dataclass(eq=False, slots=True)
class _Decoder:
    child: Child
    task: Task | None = None
    delivered: set[str] = field(default_factory=set)
    waits: bool = False
    """Whether it waits until it is told to go on."""
    heard: float = 0.0


@dataclass(eq=False, slots=True)
class _Engine:
    child: Child
    number: int
    is_ready: bool = False
    tables: dict[int, _Table] = field(default_factory=dict)
    """Those that it has, by number, in the order in which it got them."""


class LocalExecutor:
    """The `Executor` of one machine. `run` returns when they are done, or as soon as it is to stop."""

    def __init__(self, settings: ExecutorSettings) -> None:
        self._settings = settings
        self._waiting = selectors.DefaultSelector()
        self._decoders: list[_Decoder] = []
        self._engines: list[_Engine] = []
        self._ready: deque[_Table] = deque()
        self._stops = False
        self._numbers = count()
        self._decoder_losses, self._engine_losses = Losses("decoder"), Losses("engine")
        self._seconds = self._rows = 0.0

    def start(self) -> None:
        """Start the engines and a decoder, which takes a while; rows may come later."""
        for number in range(len(self._settings.transcribers)):
            self._start_engine(number)
        self._start_decoder()

    def stop(self) -> None:
        """Take up no more work: `run` returns when the engines have given back what they have."""
        self._stops = True

    def run(self, pending: Any, output: Output, on_look: Callable[[], None] = lambda: None) -> bool:
        """Transcribe the rows of a table of the schema RECORDINGS; returns whether all are done.

        `on_look` is called several times a second, and may call `stop`. Raises EngineError where the model cannot be
        used or processes end again and again, and what the output raises.
        """
        tasks, self._output = Tasks(pending), output
        while not self._is_done(tasks):
            self._hand_out(tasks)
            for key, _ in self._waiting.select(_LOOK_SEC):
                if isinstance(key.data, _Engine):
                    self._hear_engine(key.data)
                else:
                    self._hear_decoder(key.data, tasks)
            self._kill_stalled()
            output.write_if_old()
            on_look()
        return self._has_done(tasks)

    def close(self) -> None:
        """End all processes."""
        workers: list[_Decoder | _Engine] = [*self._decoders, *self._engines]
        for worker in workers:
            self._waiting.unregister(worker.child.channel)
            worker.child.kill()
            worker.child.ended()
        for table in (*self._ready, *(table for engine in self._engines for table in engine.tables.values())):
            os.close(table.file)
        self._decoders, self._engines, self._ready = [], [], deque()
        self._waiting.close()

    def _is_done(self, tasks: Tasks) -> bool:
        return (self._stops and not self._in_engines) or self._has_done(tasks)

    def _has_done(self, tasks: Tasks) -> bool:
        is_decoded = tasks.is_empty and not any(decoder.task for decoder in self._decoders)
        return is_decoded and not self._ready and not self._in_engines

    @property
    def _in_engines(self) -> bool:
        return any(engine.tables for engine in self._engines)

    def _hand_out(self, tasks: Tasks) -> None:
        if self._stops:
            return
        engines = sorted((engine for engine in self._engines if engine.is_ready), key=lambda one: len(one.tables))
        for engine in engines:
            while self._ready and len(engine.tables) <= TABLES_AT_ONCE:  # those under way, and the next
                suspects = [*engine.tables.values(), self._ready[0]]
                if len(suspects) > 1 and any(table.deaths for table in suspects):
                    break  # over which an engine has ended, is with an engine alone
                number, table = next(self._numbers), self._ready.popleft()
                engine.tables[number] = table
                self._send(engine, {"table": number}, table.file)
        places = self._settings.tables_ahead * len(self._engines)
        places -= len(self._ready) + sum(len(engine.tables) for engine in self._engines)
        for decoder in self._decoders:
            if decoder.waits and places > 0:
                decoder.waits = False
                self._send(decoder, {"go": True})
                places -= 1
        idle = [decoder for decoder in self._decoders if decoder.task is None]
        while places > 0 and not tasks.is_empty and (idle or len(self._decoders) < self._settings.decoders):
            decoder = idle.pop() if idle else self._start_decoder()
            task = tasks.next(self._task_rows(tasks))
            assert task is not None
            decoder.task, decoder.delivered, decoder.heard = task, set(), time.monotonic()
            file = table_file(tasks.table(task))
            self._send(decoder, {"task": True}, file)
            os.close(file)

    def _task_rows(self, tasks: Tasks) -> int:
        """Rows of about a table of audio, and few enough for all processes to have some."""
        count: int = tasks.pending.num_rows
        fair = -(-count // (4 * self._settings.decoders))
        if not self._rows:
            return min(FIRST_ROWS, fair)
        mean_sec = max(self._seconds / self._rows, 0.1)
        decoding = self._settings.decoding
        rows = max(int(decoding.table_sec / mean_sec), rows_at_least(decoding.cut))
        return max(1, min(MAX_ROWS, fair, rows))

    def _send(self, worker: _Decoder | _Engine, fields: dict[str, Any], file: int | None = None) -> None:
        try:
            worker.child.channel.send(fields, file)
        except OSError:
            return  # it has ended: its closed channel says so

    def _start_decoder(self) -> _Decoder:
        decoder = _Decoder(Child(DECODER))
        self._decoders.append(decoder)
        self._waiting.register(decoder.child.channel, selectors.EVENT_READ, decoder)
        decoder.child.send_object(object_file(self._settings.decoding))
        return decoder

    def _start_engine(self, number: int) -> None:
        engine = _Engine(Child(ENGINE), number)
        self._engines.append(engine)
        self._waiting.register(engine.child.channel, selectors.EVENT_READ, engine)
        engine.child.send_object(object_file(self._settings.transcribers[number]))

    def _hear_decoder(self, decoder: _Decoder, tasks: Tasks) -> None:
        message = decoder.child.channel.receive()
        if message is None:
            self._decoder_ended(decoder, tasks)
            return
        decoder.heard = time.monotonic()
        if message.file is None:
            return
        table = _Table(message.file, message.fields["rows"])
        if table.rows:
            self._decoder_losses.none()
            self._ready.append(table)
            decoder.delivered.update(read_table(table.file).column("id").to_pylist())
            self._rows += table.rows
            self._seconds += message.fields["seconds"]
        else:
            os.close(table.file)
        if message.fields["last"]:
            decoder.task = None
        else:
            decoder.waits = True

    def _decoder_ended(self, decoder: _Decoder, tasks: Tasks) -> None:
        self._waiting.unregister(decoder.child.channel)
        self._decoders.remove(decoder)
        how = decoder.child.ended()
        if decoder.task is None:
            self._decoder_losses.note(how)
            return
        ids = tasks.table(decoder.task).column("id").to_pylist()
        undelivered = np.array([id not in decoder.delivered for id in ids], bool)
        refused = tasks.put_back(decoder.task, decoder.task.rows[undelivered], how)
        for row, reason in refused:
            recording = tasks.pending.slice(row, 1).to_pylist()[0]
            error = crashed(recording["path"], reason)
            self._output.add(transcribed_table([failed_row(recording["id"], recording["path"], error)]))
        if refused:
            logger.warning("A process that decodes has ended: %s", error)
        else:
            self._decoder_losses.note(how)

    def _hear_engine(self, engine: _Engine) -> None:
        message = engine.child.channel.receive()
        if message is None:
            self._engine_ended(engine)
            return
        fields = message.fields
        if "fatal" in fields:
            raise EngineError(fields["fatal"], hint=fields["hint"])
        if "ready" in fields:
            engine.is_ready = True
            return
        self._engine_losses.none()
        self._take(engine, message)

    def _take(self, engine: _Engine, message: Message) -> None:
        transcribed = copied_table(message)
        os.close(engine.tables.pop(message.fields["transcribed"]).file)
        self._output.add(transcribed)

    def _engine_ended(self, engine: _Engine) -> None:
        self._waiting.unregister(engine.child.channel)
        self._engines.remove(engine)
        how = engine.child.ended()
        self._engine_losses.note(how)
        logger.warning("The engine on %s has ended (%s) and is started again", self._device(engine), how)
        tables = list(engine.tables.values())
        for table in tables[:TABLES_AT_ONCE]:
            table.deaths += 1
        for table in reversed(tables):
            if table.deaths >= MAX_TABLE_DEATHS:
                self._try_apart(table, how)
            else:
                self._ready.appendleft(table)
        engine.tables.clear()
        self._start_engine(engine.number)

    def _try_apart(self, table: _Table, how: str) -> None:
        """Give a table that engines end with to them row by row; a row that they end with has an error."""
        rows = read_table(table.file)
        os.close(table.file)
        if rows.num_rows == 1:
            id, path = rows.column("id")[0].as_py(), rows.column("path")[0].as_py()
            self._output.add(transcribed_table([failed_row(id, path, engine_ended(path, how))]))
            self._engine_losses.none()
            return
        for row in range(rows.num_rows):
            alone = rows.take(pa.array([row]))
            self._ready.appendleft(_Table(table_file(alone), 1, deaths=MAX_TABLE_DEATHS - 1))

    def _kill_stalled(self) -> None:
        now = time.monotonic()
        for decoder in self._decoders:
            if decoder.task is not None and not decoder.waits and now - decoder.heard > STALLED_SEC:
                decoder.heard = now
                decoder.child.kill()

    def _device(self, engine: _Engine) -> str:
        return self._settings.transcribers[engine.number].device
