"""Reports in files: written, and read back.

A file's suffix decides its content: `.json` all figures, `.html` and `.md` the same for people, `.jsonl` every request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moulin.errors import OptionsError
from moulin.evaluate.pages.html import to_html
from moulin.evaluate.pages.markdown import to_markdown
from moulin.evaluate.report import Report

SUFFIXES = (".json", ".html", ".md", ".jsonl")


def check_outputs(files: Sequence[Path]) -> None:
    """Raises OptionsError where one of `files` could not be written: before anything is measured."""
    for file in files:
        if file.suffix not in SUFFIXES:
            raise OptionsError(
                f"Expected a file that ends in {', '.join(SUFFIXES)} for --to, got {file}",
                hint="figures, a page, its text, or a line for every request",
            )
        if file.is_dir():
            raise OptionsError(f"{file} is a folder", hint="name a file in it")
        file.parent.mkdir(parents=True, exist_ok=True)


def write(report: Report, files: Sequence[Path], lines: Iterable[Mapping[str, Any]] = ()) -> None:
    """Write each of `files` in the form that its suffix names; `lines` are for `.jsonl`."""
    lines = list(lines)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".jsonl":
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        else:
            text = {".html": to_html, ".md": to_markdown}.get(file.suffix, to_text)(report)
        file.write_text(text, encoding="utf-8")


def read_report(file: Path) -> Report:
    """The report that `write` wrote as JSON. Raises OptionsError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionsError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError:
        found = {}
    if not isinstance(found, dict) or "command" not in found:
        raise OptionsError(f"{file} is no result of moulin bench", hint="it is written with --to FILE.json")
    return Report.from_json(found)


def to_text(report: Report) -> str:
    """The JSON of a report."""
    return indented(report.to_json())


def indented(found: Mapping[str, Any]) -> str:
    """JSON, indented, but with every list of numbers, and every utterance, on a line of its own."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda match: re.sub(r"\s*\n\s*", " ", match[0]), text)
    text = re.sub(r'\{[^\[\]{}]*"words"[^\[\]{}]*\}', lambda match: re.sub(r"\s*\n\s*", " ", match[0]), text)
    return text + "\n"
