"""Kaldi's data folder: `wav.scp`, and `segments` of its recordings where that is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moulin.bulk.manifests.columns import with_places
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import RECORDINGS
from moulin.errors import OptionsError
from moulin.manifests.kaldi_tables import archive_error, check_audio, read_segment, read_table

_IN_ARCHIVE = re.compile(r"\.ark:\d+$")


def read_kaldi(wav_scp: Path) -> Any:
    """The segments or, without any, the recordings, in their order. Raises OptionsError."""
    recordings = read_table(wav_scp)
    for key, (number, value) in recordings.items():
        check_audio(wav_scp, number, key, value)
        if _IN_ARCHIVE.search(value):
            raise archive_error(wav_scp, number, key, value)
    paths = {key: value for key, (_, value) in recordings.items()}
    del recordings  # of a million, a table and a dictionary are a large part of the memory
    segments_file = wav_scp.parent / "segments"
    if segments_file.is_file():
        found = _segments(segments_file, wav_scp, paths)
    else:
        found = pa.table({"id": list(paths), "path": list(paths.values())})
    # Kaldi's paths are relative to where its scripts run, most others to the list itself.
    return with_places(_with_all_columns(found), Path(), wav_scp.parent)


def _segments(file: Path, wav_scp: Path, paths: Mapping[str, str]) -> Any:
    """The columns of all segments in `file`. Raises OptionsError."""
    ids: list[str] = []
    of: list[str] = []
    offsets: list[float] = []
    windows: list[float | None] = []
    for key, (number, value) in read_table(file).items():
        recording, offset_sec, window_sec = read_segment(file, number, value)
        if recording not in paths:
            raise OptionsError(f"{recording!r}, which {file} names on line {number}, is not in {wav_scp}")
        ids.append(key)
        of.append(recording)
        offsets.append(offset_sec)
        windows.append(window_sec)
    columns = {"id": ids, "path": [paths[one] for one in of], "recording": of}
    numbers = {"offset_sec": pa.array(offsets, pa.float64()), "window_sec": pa.array(windows, pa.float64())}
    return pa.table({**columns, **numbers})


def _with_all_columns(found: Any) -> Any:
    """`found` as a table of the schema RECORDINGS; columns that it lacks are null."""
    columns = {
        field.name: found.column(field.name) if field.name in found.column_names else pa.nulls(len(found), field.type)
        for field in RECORDINGS
    }
    return pa.table(columns, schema=RECORDINGS)
