"""Kaldi's data folder: `wav.scp`, and `segments` of its recordings where that is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from moulin.bulk.manifests.columns import place_of
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
    relative = next((value for _, value in recordings.values() if not value.startswith("/")), "/")
    # Kaldi's paths are relative to where its scripts run, most others to the list itself.
    folder = place_of(relative, Path(), wav_scp.parent)
    paths = {key: str(folder / value) if folder != Path() else value for key, (_, value) in recordings.items()}
    segments_file = wav_scp.parent / "segments"
    if not segments_file.is_file():
        whole = [{"id": key, "path": path} for key, path in paths.items()]
        return pa.Table.from_pylist(whole, schema=RECORDINGS)
    rows: list[dict[str, Any]] = []
    for key, (number, value) in read_table(segments_file).items():
        recording, offset_sec, window_sec = read_segment(segments_file, number, value)
        if recording not in paths:
            raise OptionsError(f"{recording!r}, which {segments_file} names on line {number}, is not in {wav_scp}")
        rows.append(
            {
                "id": key,
                "path": paths[recording],
                "offset_sec": offset_sec,
                "window_sec": window_sec,
                "recording": recording,
            }
        )
    return pa.Table.from_pylist(rows, schema=RECORDINGS)
