"""The part that grows: rows in memory until there are enough for a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pyarrow.compute as pc

from moulin.bulk.output.formats import RecordingsOf
from moulin.bulk.output.parts import PartFolder
from moulin.bulk.pyarrow_here import pa

MAX_ROWS = 200_000
MAX_AGE_SEC = 600.0
"""A part is written at the latest so long after its first row: what a kill can cost."""


class OpenPart:
    """Transcripts on their way into parts of `part_sec` seconds of audio."""

    def __init__(
        self,
        folder: PartFolder,
        recordings_of: RecordingsOf,
        *,
        part_sec: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._recordings_of, self._part_sec, self._clock = folder, recordings_of, part_sec, clock
        self._tables: list[Any] = []
        self._seconds, self._rows, self._since = 0.0, 0, 0.0
        self.written = 0
        """Parts so far."""

    def add(self, transcribed: Any) -> None:
        """Append rows, and write a part where it is full. Raises OSError."""
        if not self._tables:
            self._since = self._clock()
        self._tables.append(transcribed)
        self._rows += transcribed.num_rows
        self._seconds += pc.sum(transcribed.column("duration_sec")).as_py() or 0.0
        if self._seconds >= self._part_sec or self._rows >= MAX_ROWS:
            self.write()

    def write_if_old(self) -> None:
        """Write the part where its first row has waited for long. Raises OSError."""
        if self._tables and self._clock() - self._since >= MAX_AGE_SEC:
            self.write()

    def write(self) -> None:
        """Write the rows there are. Raises OSError; they are kept then."""
        if not self._tables:
            return
        table = pa.concat_tables(self._tables)
        self._folder.write(table, self._recordings_of)
        self.written += 1
        self._tables, self._seconds, self._rows = [], 0.0, 0


class ChangedParts:
    """Rows that were tried again, on their way into the parts where they are: a part is written again when all of its
    rows have come."""

    def __init__(self, folder: PartFolder, recordings_of: RecordingsOf, parts: dict[Any, Any]) -> None:
        """`parts` are the ids to be tried again by part."""
        self._folder, self._recordings_of = folder, recordings_of
        self._part_of = {id: part for part, ids in parts.items() for id in ids}
        self._missing = {part: len(ids) for part, ids in parts.items()}
        self._tables: dict[Any, list[Any]] = {part: [] for part in parts}
        self.written = 0
        """Parts so far."""

    def add(self, transcribed: Any) -> None:
        """Take rows, and write the parts that are complete with them. Raises OSError."""
        parts = [self._part_of[id] for id in transcribed.column("id").to_pylist()]
        for part in dict.fromkeys(parts):
            mine = transcribed.filter(pa.array([one == part for one in parts]))
            self._tables[part].append(mine)
            self._missing[part] -= mine.num_rows
            if self._missing[part] == 0:
                self._write(part)

    def write_if_old(self) -> None:
        """Parts wait for all of their rows."""

    def write(self) -> None:
        """Write all parts of which some rows have come. Raises OSError."""
        for part in [part for part, tables in self._tables.items() if tables]:
            self._write(part)

    def _write(self, part: Any) -> None:
        table = pa.concat_tables(self._tables[part])
        self._folder.replace(part, table, self._recordings_of)
        self._tables[part] = []
        self.written += 1
