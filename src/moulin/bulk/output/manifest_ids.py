"""The ids that the last run's manifest names, in the job's folder: for `moulin bulk status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moulin.bulk.output.job import FOLDER
from moulin.bulk.output.parts import Shard
from moulin.bulk.pyarrow_here import pa

_FILE = "manifest.ids"  # no suffix by which readers of the folder would take it for a part


def note_ids(folder: Path, ids: Any, shard: Shard) -> None:
    """Write `ids`, of all shards together, in the place of those of the run before. The caller owns `shard`.

    Raises OSError.
    """
    file = folder / FOLDER / _FILE
    new = file.with_name(f"{_FILE}.{shard}.tmp")
    table = pa.table({"id": ids})
    try:
        with (
            pa.OSFile(str(new), "wb") as sink,
            pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer,
        ):
            writer.write_table(table)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def noted_ids(folder: Path) -> Any | None:
    """The ids that were noted, text [N]; None where no run has come so far or they cannot be read."""
    try:
        with pa.OSFile(str(folder / FOLDER / _FILE)) as source:
            return pa.ipc.open_file(source).read_all().column("id")
    except (OSError, pa.ArrowException, KeyError):
        return None
