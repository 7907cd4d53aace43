"""The parts in a job's folder: each appears by one rename, named by the recordings in it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from moulin.bulk.output.formats import FORMATS, Format, RecordingsOf
from moulin.bulk.output.job import FOLDER, Job
from moulin.bulk.pyarrow_here import pa
from moulin.errors import MoulinError, OptionsError, first_line
from moulin.launch.file_lock import FileLock, owner_is_gone
from moulin.quoting import quoted

_MOST_OWNER_CHARS = 300


@dataclass(frozen=True, slots=True)
class Shard:
    """The part `number` of `count` into which the recordings are divided, from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def of(cls, text: str) -> Shard:
        """From `K/N`. Raises OptionsError."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise OptionsError(f"Expected a shard as K/N with K from 1 to N, got {text!r}", hint="for example 1/16")
        return cls(int(number), int(count))

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"


WHOLE = Shard()


class PartFolder:
    """Writes and reads the parts of one job."""

    def __init__(self, folder: Path, job: Job, shard: Shard = WHOLE) -> None:
        self.folder, self.job, self.shard = folder, job, shard
        self._format = FORMATS[job.format]

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Nobody else works on the same recordings within the block. Raises OptionsError where somebody does."""
        inside = self.folder / FOLDER
        try:
            lock = FileLock(mine := inside / f"lock-{self.shard}")
        except BlockingIOError:
            raise OptionsError(
                f"Another process works on shard {self.shard.number} of {self.folder}{_owner_of(mine)}"
            ) from None
        try:
            mine.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M}")
            for other in inside.glob("lock-*-of-*"):
                if not other.name.endswith(f"-of-{self.shard.count}"):
                    free = owner_is_gone(other)
                    if free is None and lock.is_held:
                        raise OptionsError(
                            f"Another process works on {other.name.removeprefix('lock-')} of {self.folder}, which is "
                            f"divided otherwise than into {self.shard.count}{_owner_of(other)}"
                        )
                    if free is not None:
                        free.release()
            for left in inside.glob(f"*.{self.shard}.tmp"):
                left.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def write(self, table: Any, recordings_of: RecordingsOf) -> Path:
        """Write a part with the rows of `table`, of the schema TRANSCRIBED. Raises OSError where the disk is full."""
        self._format.beside(table, self.folder)
        file = self.folder / self.job.part_name(table.column("id").to_pylist())
        with self._new(file) as new:
            self._format.write(table, recordings_of, new)
        return file

    def replace(self, part: Path, table: Any, recordings_of: RecordingsOf) -> None:
        """Put the rows of `table` in the place of those with the same ids in `part`."""
        self._format.beside(table, self.folder)
        changed = self._temporary(part, "rows")
        try:
            self._format.write(table, recordings_of, changed)
            with self._new(part) as new:
                self._format.merge(part, changed, new)
        finally:
            changed.unlink(missing_ok=True)

    def _temporary(self, file: Path, what: str) -> Path:
        return self.folder / FOLDER / f"{file.name}.{what}.{self.shard}.tmp"

    @contextmanager
    def _new(self, file: Path) -> Iterator[Path]:
        new = self._temporary(file, "new")
        try:
            yield new
            with new.open("rb+") as written:
                os.fsync(written.fileno())
            new.replace(file)
        except BaseException:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise


def _owner_of(lock: Path) -> str:
    """What its owner has written into a file that is locked, for the end of a sentence."""
    try:
        with lock.open(encoding="utf-8", errors="replace") as file:
            said = file.read(_MOST_OWNER_CHARS)
    except OSError:
        return ""
    return f": {quoted(said)}" if said else ""


def parts_in(folder: Path, suffix: str) -> list[Path]:
    """The parts in a job's folder."""
    return sorted(folder.glob(f"part-*{suffix}"))


def read_ids(folder: Path, job_format: Format) -> Iterator[tuple[Path, Any]]:
    """Each part with its table of `id` and `error`. Raises OptionsError for a part that cannot be read."""
    return read_columns(folder, job_format, ("id", "error"))


def joined_ids(tables: Sequence[Any]) -> Any:
    """The rows of tables of `read_ids`, of which there may be none."""
    return pa.concat_tables(tables) if tables else _NO_IDS


_NO_IDS: Any = pa.table({"id": pa.array([], pa.string()), "error": pa.array([], pa.string())})


def read_columns(folder: Path, job_format: Format, columns: Sequence[str]) -> Iterator[tuple[Path, Any]]:
    """Each part with its table of some columns of FIGURES. Raises OptionsError for a part that cannot be read."""
    for part in parts_in(folder, job_format.suffix):
        try:
            yield part, job_format.read(part, columns)
        except MoulinError:
            raise
        except (OSError, KeyError, pa.ArrowException) as error:
            raise OptionsError(
                f"{part} is damaged: {first_line(error)}", hint="remove it, and its recordings are transcribed again"
            ) from error
