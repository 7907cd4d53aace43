"""What is to be transcribed, in the common forms of manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moulin.audio.source import is_audio
from moulin.bulk.manifests.columns import check_ids
from moulin.bulk.manifests.jsonl import read_csv, read_jsonl, read_parquet
from moulin.bulk.manifests.kaldi import read_kaldi
from moulin.bulk.manifests.lhotse import read_lhotse
from moulin.bulk.manifests.listing import OnSkipped, read_folder, read_list
from moulin.errors import OptionsError
from moulin.manifests.lhotse_entry import find_in, is_lhotse
from moulin.manifests.lines import read_lines

FORMS = (
    "JSONL, parquet or CSV with a path in each row, Lhotse's cuts or recordings, Kaldi's wav.scp with or without "
    "segments, a text file of paths or addresses, or a folder of audio"
)


def read_recordings(source: Path, on_skipped: OnSkipped = lambda _: None) -> Any:
    """The table of recordings that `source` lists: a file or a folder in one of FORMS, told apart by what is in it.

    No recording is opened or looked for. Raises OptionsError, also for ids that occur twice.
    """
    recordings = _read(source, on_skipped)
    if not recordings.num_rows:
        raise OptionsError(f"{source} names no recordings")
    check_ids(recordings, source)
    return recordings


def _read(source: Path, on_skipped: OnSkipped) -> Any:
    if source.is_dir():
        if (source / "wav.scp").is_file():
            return read_kaldi(source / "wav.scp")
        if (listed := find_in(source)) is not None:
            return read_lhotse(listed)
        if (source / "manifest.jsonl").is_file():
            return read_jsonl(source / "manifest.jsonl")
        return read_folder(source, on_skipped)
    if not source.exists():
        raise OptionsError(f"{source} does not exist", hint=f"expected {FORMS}")
    if not source.is_file():
        raise OptionsError(
            f"{source} is no regular file", hint="write the manifest into a file: it is read more than once"
        )
    if is_audio(source):
        raise OptionsError(
            f"{source} is a recording, expected {FORMS}", hint="moulin transcribe is for single recordings"
        )
    if source.suffix == ".scp":
        return read_kaldi(source)
    if source.suffix == ".parquet":
        return read_parquet(source)
    if source.suffix in (".csv", ".tsv"):
        return read_csv(source)
    if is_lhotse(source):
        return read_lhotse(source)
    match next(read_lines(source), (0, ""))[1][:1]:
        case "{":
            return read_jsonl(source)
        case "[":  # one list in JSON, on many lines
            return read_lhotse(source)
    if ".jsonl" in source.suffixes[-2:]:
        return read_jsonl(source)  # says what is wrong
    return read_list(source)
