"""Formats of a part: parquet, JSONL, Lhotse's supervisions, and SRT beside parquet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet

from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import QUALITY, TRANSCRIBED, transcript_of
from moulin.errors import OptionsError
from moulin.transcript_formats import to_srt

FormatName = Literal["parquet", "jsonl", "lhotse", "srt"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)

RecordingsOf = Callable[[Any], Any]
"""Gives the recordings of ids, row by row; which takes a look at the whole manifest."""

FIGURES = ("id", "path", "error", "duration_sec", "warnings", *QUALITY)
"""The columns that can be read from a part of any format."""

_ROWS_AT_ONCE = 1024
_BLOCK_BYTES = 32 << 20
"""A line of JSON is at most so long: the words of a recording of a day take 20 MB."""


@dataclass(frozen=True, slots=True)
class Format:
    """How the rows of a part are stored."""

    name: FormatName
    suffix: str
    write: Callable[[Any, RecordingsOf, Path], None]
    """Writes a table of the schema TRANSCRIBED into a file."""
    read: Callable[[Path, Sequence[str]], Any]
    """A table of some columns of a part, of FIGURES."""
    merge: Callable[[Path, Path, Path], None]
    """Writes a part again with the rows of another, which replace those with the same ids, into a third file."""
    beside: Callable[[Any, Path], None] = lambda _table, _folder: None
    """Writes what belongs into the job's folder beside the part, before the part."""


def _write_parquet(table: Any, _recordings_of: RecordingsOf, file: Path) -> None:
    pyarrow.parquet.write_table(table, file, compression="zstd")


def _read_parquet(file: Path, columns: Sequence[str]) -> Any:
    return pyarrow.parquet.ParquetFile(file).read(columns=list(columns)).select(columns)


def _merge_parquet(part: Path, changed: Path, to: Path) -> None:
    old, new = (pyarrow.parquet.ParquetFile(file).read().cast(TRANSCRIBED) for file in (part, changed))
    kept = old.filter(pc.invert(pc.is_in(old.column("id"), new.column("id").combine_chunks())))
    both = pa.concat_tables([kept, new])
    order = pc.index_in(old.column("id"), both.column("id").combine_chunks())
    pyarrow.parquet.write_table(both.take(order), to, compression="zstd")


def _write_plain_lines(table: Any, _recordings_of: RecordingsOf, file: Path) -> None:
    _write_lines(map(_plain_line, _rows(table)), file)


def _write_supervisions(table: Any, recordings_of: RecordingsOf, file: Path) -> None:
    _write_lines(map(_supervision, _rows(table), _rows(recordings_of(table.column("id")))), file)


def _write_lines(entries: Iterable[dict[str, Any]], file: Path) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for entry in entries:
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _read_json(file: Path, schema: Any) -> Any:
    return pyarrow.json.read_json(
        file,
        read_options=pyarrow.json.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _fields(columns: Sequence[str]) -> list[Any]:
    """Fields as they are read from lines, where any may be missing."""
    return [TRANSCRIBED.field(name).with_nullable(True) for name in columns]


def _read_plain_lines(file: Path, columns: Sequence[str]) -> Any:
    return _read_json(file, pa.schema(_fields(columns))).select(columns)


def _read_supervisions(file: Path, columns: Sequence[str]) -> Any:
    inside = [name for name in columns if name not in _SUPERVISION_FIELDS]
    outside = [
        pa.field(_SUPERVISION_FIELDS[name], TRANSCRIBED.field(name).type) for name in columns if name not in inside
    ]
    custom = [pa.field("custom", pa.struct(_fields(inside)))] if inside else []
    read = _read_json(file, pa.schema([*outside, *custom]))
    return pa.table(
        {
            name: pc.struct_field(read.column("custom"), name)
            if name in inside
            else read.column(_SUPERVISION_FIELDS[name])
            for name in columns
        }
    )


def _merge_lines(part: Path, changed: Path, to: Path) -> None:
    with changed.open(encoding="utf-8") as lines:
        new = {json.loads(line)["id"]: line for line in lines}
    with part.open(encoding="utf-8") as lines, to.open("w", encoding="utf-8") as merged:
        for line in lines:
            merged.write(new.get(json.loads(line)["id"], line))


def _plain_line(row: dict[str, Any]) -> dict[str, Any]:
    """As `moulin transcribe --format json`, with id and path instead of file, and the figures of QUALITY."""
    head = {"id": row["id"], "path": row["path"]}
    if row["error"] is not None:
        return {**head, "error": row["error"]}
    return {**head, **transcript_of(row).to_dict(), **_quality(row)}


def _quality(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(row[name], 4) for name in QUALITY if row[name] is not None}


def _supervision(row: dict[str, Any], recording: dict[str, Any]) -> dict[str, Any]:
    """A supervision of Lhotse's, over the whole row; an error is in `custom`, beside an empty text."""
    start_sec = recording["offset_sec"] or 0.0
    channel = int(recording["channels"]) - 1 if (recording["channels"] or "").isdecimal() else 0
    custom: dict[str, Any] = {"path": row["path"], "warnings": row["warnings"] or []}
    line = {
        "id": row["id"],
        "recording_id": recording["recording"] or row["id"],
        "start": start_sec,
        "duration": row["duration_sec"] or 0.0,
        "channel": channel,
        "text": row["text"] or "",
    }
    if row["error"] is not None:
        return {**line, "custom": {**custom, "error": row["error"]}}
    words = [
        [
            word["word"],
            round(word["start_sec"] + start_sec, 3),
            round(word["end_sec"] - word["start_sec"], 3),
            word["confidence"],
        ]
        for word in row["words"] or ()
    ]
    return {**line, "custom": {**custom, **_quality(row)}, "alignment": {"word": words}}


_SUPERVISION_FIELDS = {"id": "id", "text": "text", "duration_sec": "duration"}
"""Columns by their names in a supervision; others are in `custom`."""


def _write_subtitles(table: Any, folder: Path) -> None:
    for row in _rows(table):
        if row["error"] is None:
            file = folder / subtitle_name(row["id"])
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{file.name}.part")
            part.write_text(to_srt(transcript_of(row)), encoding="utf-8")
            part.replace(file)


_LONGEST_NAME, _LONGEST_PATH = 200, 2000


def subtitle_name(id: str) -> str:
    """The path of a recording's subtitles in the job's folder: its id, or a hash of an id that is no relative path
    within a folder."""
    path = PurePosixPath(id)
    plain = (
        path.as_posix() == id
        and id.isprintable()
        and not path.is_absolute()
        and len(id.encode()) <= _LONGEST_PATH
        and all(not part.startswith((".", "_")) and len(part.encode()) <= _LONGEST_NAME for part in path.parts)
        and not any(part.endswith((".srt", ".parquet")) for part in path.parts[:-1])  # names of files
    )
    return f"{id}.srt" if plain and path.parts else f"{hashlib.sha256(id.encode()).hexdigest()[:32]}.srt"


FORMATS: dict[FormatName, Format] = {
    "parquet": Format("parquet", ".parquet", _write_parquet, _read_parquet, _merge_parquet),
    "jsonl": Format("jsonl", ".jsonl", _write_plain_lines, _read_plain_lines, _merge_lines),
    "lhotse": Format("lhotse", ".jsonl", _write_supervisions, _read_supervisions, _merge_lines),
    "srt": Format("srt", ".parquet", _write_parquet, _read_parquet, _merge_parquet, _write_subtitles),
}


def format_named(name: str) -> FormatName:
    """The format of that name. Raises OptionsError."""
    for known in FORMAT_NAMES:
        if name == known:
            return known
    raise OptionsError(f"Expected a format of {', '.join(FORMAT_NAMES)}, got {name!r}")
