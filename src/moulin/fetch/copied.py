"""A fetched model copied to where it is wanted, for images and for volumes of pods."""

from __future__ import annotations

import shutil
from pathlib import Path

from moulin.fetch.errors import FetchError


def copy_model(folder: Path, to: Path) -> None:
    """Copy the files in `folder` into the folder `to`, which is made; those with the same names are replaced.

    Each file appears as a whole, so that an interrupted copy is made good by another. Raises FetchError.
    """
    try:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                copy = to / file.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                part = copy.with_name(f".{copy.name}.part")
                shutil.copyfile(file, part)
                part.replace(copy)
    except OSError as error:
        raise FetchError(f"{folder} cannot be copied to {to}: {error.strerror or error}") from error
