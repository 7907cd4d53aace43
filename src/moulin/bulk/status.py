"""What of a job is done, has failed and is missing, by the parts in its folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moulin.bulk.output.job import format_of, noted_recordings, read
from moulin.bulk.output.parts import read_ids
from moulin.quoting import cut

_MOST_KINDS = 1000


@dataclass(slots=True)
class Status:
    """Counts of a job's recordings."""

    model: str
    parts: int = 0
    done: int = 0
    """With a transcript or an error."""
    failed: int = 0
    recordings: int | None = None
    """Those of the last run's manifest, all shards together; None where no run has come so far."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Failures by their message, without the recording's name."""

    def add(self, table: Any) -> None:
        """Count the rows of a part, a table with the columns `id` and `error`."""
        self.parts += 1
        self.done += table.num_rows
        errors = table.filter(table.column("error").is_valid())
        self.failed += errors.num_rows
        for id, error in zip(errors.column("id").to_pylist(), errors.column("error").to_pylist(), strict=True):
            kind = kind_of(error, id)
            if kind in self.kinds or len(self.kinds) < _MOST_KINDS:
                self.kinds[kind] += 1

    @property
    def missing(self) -> int | None:
        return None if self.recordings is None else max(self.recordings - self.done, 0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "model": self.model,
            "recordings": self.recordings,
            "done": self.done,
            "failed": self.failed,
            "missing": self.missing,
            "parts": self.parts,
            "failures": dict(self.kinds.most_common(_MOST_KINDS)),
        }


def status_of(folder: Path) -> Status:
    """The status of the job in `folder`. Raises OptionsError where there is none, or a part is damaged."""
    status = Status(read(folder)["model"], recordings=noted_recordings(folder))
    for _, table in read_ids(folder, format_of(folder)):
        status.add(table)
    return status


def kind_of(error: str, id: str) -> str:
    """An error without the recording's path, which its first words are, and without its hint."""
    said = error.split(" (hint: ")[0]
    for word in said.split(" "):
        if "/" in word or word == id:
            said = said.replace(word, "…")
    return cut(said, 200)
