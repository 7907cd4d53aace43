"""What to measure on: recordings with what is said in them, one JSON object a line (`audio`, `text`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from moulin.errors import OptionsError


@dataclass(frozen=True, slots=True)
class Utterance:
    """A recording and its reference text."""

    audio: Path
    text: str


def read_manifest(file: Path) -> list[Utterance]:
    """The recordings of a JSONL manifest, whose paths are relative to its folder. Raises OptionsError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise OptionsError(f"{file} cannot be read: {error.strerror or error}") from error
    utterances = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            utterances.append(Utterance(file.parent / entry["audio"], entry["text"]))
        except (ValueError, KeyError, TypeError):
            raise OptionsError(f'Expected {{"audio": …, "text": …}} on line {number} of {file}, got {line!r}') from None
    if not utterances:
        raise OptionsError(f"{file} names no recordings")
    return utterances
