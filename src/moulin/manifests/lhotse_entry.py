"""Lhotse's manifests, told from others by their first entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moulin.errors import OptionsError
from moulin.manifests.lines import read_lines

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


def find_in(folder: Path) -> Path | None:
    """The cuts or, where there are none, the recordings that lie in `folder`. Raises OptionsError where several do."""
    files = [file for file in sorted(folder.iterdir()) if file.name.endswith(_SUFFIXES)]
    for kind in ("cuts", "recordings"):
        named = [file for file in files if kind in file.name and is_lhotse(file)]
        if len(named) > 1:
            raise OptionsError(
                f"{folder} holds several {kind}: {', '.join(file.name for file in named)}", hint="name one of them"
            )
        if named:
            return named[0]
    return None


def is_lhotse(file: Path) -> bool:
    """Whether the first line of `file` is a cut or a recording of Lhotse's."""
    if not file.name.endswith(_SUFFIXES):
        return False
    entry = first_entry(file)
    return "sources" in entry or str(entry.get("type", "")).endswith("Cut")


def first_entry(file: Path) -> dict[str, Any]:
    """The first entry of a manifest; empty where it is no JSON object."""
    try:
        line = next(read_lines(file), (0, ""))[1]
        entry = json.loads(line)
    except (ValueError, RecursionError):
        # A manifest as one JSON list begins like this; Lhotse reads that, too.
        return {"sources": None} if '"sources"' in line else {"type": "MonoCut"} if '"MonoCut"' in line else {}
    if isinstance(entry, list):
        entry = entry[0] if entry else {}
    return entry if isinstance(entry, dict) else {}
