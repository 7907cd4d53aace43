"""The rows of a manifest that a run is to transcribe: those of its shard that no part has yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from moulin.audio.selection import MIX, Selection
from moulin.bulk.output.formats import FORMATS, RecordingsOf
from moulin.bulk.output.parts import PartFolder, Shard, joined_ids, read_ids
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.runs import run_begins


@dataclass(frozen=True, slots=True)
class Pending:
    """Rows to transcribe, and counts of this shard's recordings."""

    rows: Any
    total: int
    done: int
    """Of `total`, those in parts before this run; failed ones that are tried again are not among them."""
    failed: int
    failed_in: dict[Path, list[str]]
    """The ids to be tried again, by the part in which they are."""


def pending_rows(recordings: Any, parts: PartFolder, selection: Selection, *, retries: bool) -> Pending:
    """What is to be done of the table `recordings`: rows that no part has or, where a run `retries`, those with an
    error. Raises OptionsError for a damaged part."""
    mine = _selected(_of_shard(recordings, parts.shard), selection)
    tables = list(read_ids(parts.folder, FORMATS[parts.job.format]))
    there = joined_ids([table for _, table in tables])
    ids = mine.column("id")
    is_failed = pc.is_in(ids, _with_error(there))
    is_done = pc.is_in(ids, there.column("id"))
    done, failed = (int(pc.sum(one).as_py() or 0) for one in (is_done, is_failed))
    if not retries:
        return Pending(mine.filter(pc.invert(is_done)), mine.num_rows, done, failed, {})
    rows = mine.filter(is_failed)
    wanted = rows.column("id").combine_chunks()
    failed_in = {}
    for part, table in tables:
        errors = _with_error(table)
        again = errors.filter(pc.is_in(errors, wanted)).to_pylist()
        if again:
            failed_in[part] = again
    return Pending(rows, mine.num_rows, done - failed, 0, failed_in)


def _with_error(table: Any) -> Any:
    return table.filter(pc.is_valid(table.column("error"))).column("id").combine_chunks()


def _of_shard(recordings: Any, shard: Shard) -> Any:
    """Every Nth row, or every Nth run of rows of the same audio."""
    if shard.count == 1:
        return recordings
    begins = run_begins(recordings)
    rows = np.arange(recordings.num_rows)
    runs = rows if begins is None else np.searchsorted(begins, rows, side="right") - 1
    return recordings.filter(pa.array(runs % shard.count == shard.number - 1))


def _selected(recordings: Any, selection: Selection) -> Any:
    """`recordings` with `selection` where their own is null."""
    for name, value in (("channels", selection.channels), ("track", selection.track)):
        if value not in (None, getattr(MIX, name)):
            at = recordings.column_names.index(name)
            filled = pc.fill_null(recordings.column(name), value)
            recordings = recordings.set_column(at, recordings.schema.field(name), filled)
    return recordings


def recordings_by_id(recordings: Any) -> RecordingsOf:
    """The recordings of some ids among many."""

    def found(ids: Any) -> Any:
        few = recordings.filter(pc.is_in(recordings.column("id"), ids))  # the index is of the few
        return few.take(pc.index_in(ids, few.column("id")))

    return found
