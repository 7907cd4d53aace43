"""One JSON object a line: `audio` (or NeMo's `audio_filepath`) and `text`; `id`, `offset`, `duration` where given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moulin.errors import OptionsError
from moulin.evaluate.utterance import Utterance
from moulin.manifests.lines import read_lines


def read_jsonl(file: Path) -> list[Utterance]:
    """The recordings of `file`, whose paths are relative to its folder. Raises OptionsError.

    `duration` only cuts a recording where an `offset` is there too: most manifests give it for information, rounded.
    """
    return [_utterance(file, number, line) for number, line in read_lines(file)]


def _utterance(file: Path, number: int, line: str) -> Utterance:
    try:
        entry: dict[str, Any] = json.loads(line)
        audio = entry["audio"] if "audio" in entry else entry["audio_filepath"]
        offset = entry.get("offset")
        return Utterance(
            file.parent / audio,
            str(entry["text"]),
            id=str(entry.get("id", "")),
            start_sec=float(offset or 0),
            duration_sec=float(entry["duration"]) if offset is not None and "duration" in entry else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OptionsError(
            f'Expected {{"audio": …, "text": …}} on line {number} of {file}, got {line[:200]!r}'
        ) from None
