"""A folder of audio, or a text file with a path or an address on each line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moulin.audio.source import is_audio
from moulin.bulk.manifests.columns import placed
from moulin.bulk.output.job import FOLDER
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import RECORDINGS
from moulin.errors import OptionsError
from moulin.manifests.lines import read_lines
from moulin.quoting import quoted

OnSkipped = Callable[[str], None]
"""Called with a sentence about files that are not taken."""


def read_folder(folder: Path, on_skipped: OnSkipped = lambda _: None) -> Any:
    """All audio in `folder` and below, told by suffix and ordered by path; hidden files and folders are passed over.

    Ids are the paths relative to `folder`. Raises OptionsError where there is none.
    """
    names: list[str] = []
    skipped = 0
    for at, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name != FOLDER]
        inside = Path(at).relative_to(folder)
        for name in files:
            if name.startswith("."):
                continue
            if is_audio(Path(at, name)):
                names.append(str(inside / name))
            else:
                skipped += 1
    if skipped:
        on_skipped(f"skipped in {folder}: {skipped:,} file{'s'[: skipped > 1]} without the suffix of audio")
    if not names:
        raise OptionsError(f"There is no audio in the folder {folder}")
    names.sort()
    for name in names:
        if not name.isascii():
            _check_utf8(name, folder)
    return _table(pa.array(names), pa.array([str(folder / name) for name in names]))


def read_list(file: Path) -> Any:
    """The paths and addresses in a text file; they are the ids too. Raises OptionsError."""
    lines = pa.array([line for _, line in read_lines(file)], pa.string())
    if not len(lines):
        raise OptionsError(f"{file} names no recordings")
    return _table(lines, placed(lines, Path(), file.parent))


def _table(ids: Any, paths: Any) -> Any:
    nothing = {name: pa.nulls(len(ids), RECORDINGS.field(name).type) for name in RECORDINGS.names[2:]}
    return pa.table({"id": ids, "path": paths, **nothing}, schema=RECORDINGS)


def _check_utf8(name: str, folder: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise OptionsError(
            f"The name of a file in {folder} is not UTF-8: {quoted(os.fsencode(name))}", hint="rename or remove it"
        ) from None


def _refuse(error: OSError) -> None:
    raise OptionsError(f"{error.filename} cannot be read: {error.strerror}") from error
