"""Columns of manifests in JSONL and parquet to a table of recordings; places of relative paths; ids, each once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import RECORDINGS
from moulin.errors import OptionsError, first_line
from moulin.quoting import quoted

PATHS = ("audio", "audio_filepath", "path")
"""Names of the column with the recording's path or address: the first that is there counts."""

TEXTS = ("id", *PATHS, "channels", "track")
NUMBERS = ("offset", "duration")


def recordings_of(given: Any, manifest: Path) -> Any:
    """A table of recordings from one with columns of TEXTS and NUMBERS, others aside.

    `duration` cuts where an `offset` is there too: most manifests give it for information, rounded. Ids are by default
    the paths as they are written. Raises OptionsError.
    """
    present = [name for name in PATHS if name in given.column_names]
    if not present:
        names = given.column_names
        is_one = len(names) == 1 and any(mark in names[0] for mark in ";\t|")
        raise OptionsError(
            f"Expected a column of {', '.join(PATHS)} in {manifest}, got {', '.join(names[:20]) or 'none'}",
            hint="columns are separated by commas, in *.tsv by tabs" if is_one else None,
        )
    paths = pc.coalesce(*(_column(given, name, pa.string(), manifest) for name in present))
    nothing = pa.nulls(len(given), pa.string())
    texts = {name: _column(given, name, pa.string(), manifest) for name in ("id", "channels", "track")}
    offset, duration = (_column(given, name, pa.float64(), manifest) for name in NUMBERS)
    missing = pc.or_kleene(pc.is_null(paths), pc.equal(paths, ""))
    if pc.any(missing).as_py():
        row = pc.index(missing, True).as_py() + 1
        raise OptionsError(f"Expected one of {', '.join(PATHS)} in row {row} of {manifest}, got none")
    window = pc.if_else(pc.is_null(offset), pa.scalar(None, pa.float64()), duration)
    columns = {
        "id": pc.if_else(pc.fill_null(pc.equal(texts["id"], ""), True), paths, texts["id"]),
        "path": placed(paths, manifest.parent, Path()),
        "offset_sec": offset,
        "window_sec": window,
        "channels": texts["channels"],
        "track": texts["track"],
        "recording": nothing,
    }
    return pa.table(columns, schema=RECORDINGS)


def _column(given: Any, name: str, kind: Any, manifest: Path) -> Any:
    """The column `name` as `kind`; nulls where there is none. Raises OptionsError."""
    if name not in given.column_names:
        return pa.chunked_array([pa.nulls(len(given), kind)])
    column = given.column(name)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), _MISSING, column)  # so some programs write missing numbers
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        expected = "text" if kind == pa.string() else "numbers"
        hint = "audio within a manifest is not read: write it into files" if pa.types.is_struct(column.type) else None
        raise OptionsError(
            f"Expected {expected} in the column {name} of {manifest}, got {column.type}: {first_line(error)}", hint=hint
        ) from error


_MISSING: Any = pa.scalar(None, pa.float64())


def placed(paths: Any, *folders: Path) -> Any:
    """`paths`, the relative ones in the first of `folders` in which the first of them is; in the first where it is in
    none. Addresses and absolute paths stay. No other file is looked for."""
    relative = pc.invert(
        pc.or_(pc.starts_with(paths, "/"), pc.match_substring_regex(paths, "^[A-Za-z][A-Za-z0-9+.-]+://."))
    )
    first = pc.index(relative, True).as_py()
    if first < 0:
        return paths
    example = paths[first].as_py()
    folder = _first_with(example, folders)
    if folder == Path():
        return paths
    beside = pc.binary_join_element_wise(pa.scalar(str(folder)), paths, "/")
    return pc.if_else(relative, beside, paths)


def with_places(recordings: Any, *folders: Path) -> Any:
    """A table of recordings with its paths as of `placed`."""
    at = RECORDINGS.get_field_index("path")
    return recordings.set_column(at, RECORDINGS.field(at), placed(recordings.column(at), *folders))


def _first_with(path: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        with suppress(OSError, ValueError):  # too long a name, a zero byte: its row says so
            if (folder / path).exists():
                return folder
    return folders[0]


def check_ids(recordings: Any, manifest: Path) -> None:
    """Raises OptionsError where an id occurs twice, with both rows."""
    ids = recordings.column("id")
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if not len(twice):
        return
    twin = twice.field("values")[0].as_py()
    first = pc.index(ids, twin).as_py()
    second = pc.index(ids, twin, first + 1).as_py()
    rows = [recordings.slice(row, 1).to_pylist()[0]["path"] for row in (first, second)]
    more = f"; {len(twice) - 1:,} more ids occur several times" if len(twice) > 1 else ""
    raise OptionsError(
        f"The id {quoted(twin)} is in row {first + 1} of {manifest} ({quoted(rows[0])}) and in row {second + 1} "
        f"({quoted(rows[1])}){more}",
        hint="every recording needs an id of its own, by which a job is resumed",
    )
