"""What of a job is done, has failed and is missing, by the parts in its folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from moulin.bulk.output.job import format_of, read
from moulin.bulk.output.manifest_ids import noted_ids
from moulin.bulk.output.parts import joined_ids, read_ids
from moulin.quoting import cut

_MOST_KINDS = 1000


@dataclass(slots=True)
class Status:
    """Counts of a job's recordings: those that the last run's manifest names, all shards together."""

    model: str
    parts: int = 0
    done: int = 0
    """With a transcript or an error."""
    failed: int = 0
    recordings: int | None = None
    """None where no run has come as far as the manifest; then `done` and `failed` are of all parts."""
    others: int = 0
    """Rows of parts that the manifest does not name: of an earlier one."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Failures by their message, without the recording's name."""

    @property
    def missing(self) -> int | None:
        return None if self.recordings is None else self.recordings - self.done

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "model": self.model,
            "recordings": self.recordings,
            "done": self.done,
            "failed": self.failed,
            "missing": self.missing,
            "others": self.others,
            "parts": self.parts,
            "failures": dict(self.kinds.most_common(_MOST_KINDS)),
        }


def status_of(folder: Path) -> Status:
    """The status of the job in `folder`. Raises OptionsError where there is none, or a part is damaged."""
    parts = [table for _, table in read_ids(folder, format_of(folder))]
    rows, status = joined_ids(parts), Status(read(folder)["model"], len(parts))
    if (named := noted_ids(folder)) is not None:
        mine = rows.filter(pc.is_in(rows.column("id"), named))
        status.recordings, status.others = len(named), rows.num_rows - mine.num_rows
        rows = mine
    status.done = rows.num_rows
    errors = rows.filter(rows.column("error").is_valid())
    status.failed = errors.num_rows
    for id, error in zip(errors.column("id").to_pylist(), errors.column("error").to_pylist(), strict=True):
        kind = kind_of(error, id)
        if kind in status.kinds or len(status.kinds) < _MOST_KINDS:
            status.kinds[kind] += 1
    return status


def kind_of(error: str, id: str) -> str:
    """An error without the recording's path, which its first words are, and without its hint."""
    said = error.split(" (hint: ")[0]
    for word in said.split(" "):
        if "/" in word or word == id:
            said = said.replace(word, "…")
    return cut(said, 200)
