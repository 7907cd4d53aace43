"""Kaldi's data folder: `wav.scp`, and `segments` of its recordings where that is there."""

from __future__ import annotations

import re
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
    segments_file = wav_scp.parent / "segments"
    rows: list[dict[str, Any]] = []
    if segments_file.is_file():
        for key, (number, value) in read_table(segments_file).items():
            recording, offset_sec, window_sec = read_segment(segments_file, number, value)
            if recording not in paths:
                raise OptionsError(f"{recording!r}, which {segments_file} names on line {number}, is not in {wav_scp}")
            window = {"offset_sec": offset_sec, "window_sec": window_sec}
            rows.append({"id": key, "path": paths[recording], "recording": recording, **window})
    else:
        rows += ({"id": key, "path": path} for key, path in paths.items())
    # Kaldi's paths are relative to where its scripts run, most others to the list itself.
    return with_places(pa.Table.from_pylist(rows, schema=RECORDINGS), Path(), wav_scp.parent)
