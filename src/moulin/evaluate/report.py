"""The files that a benchmark's figures go into: with where, when and with what they were measured.

The suffix says what a file holds: `.json` all figures, `.html` and `.md` the same for people, `.jsonl` every request.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from moulin.bundle.spec import ModelSpec
from moulin.errors import OptionsError
from moulin.evaluate.machine import machine, versions

SUFFIXES = (".json", ".html", ".md", ".jsonl")

Report = Mapping[str, Any]
"""JSON-ready: date, machine, versions, command, model, and the figures."""


def make_report(arguments: Sequence[str], spec: ModelSpec | None, figures: Mapping[str, Any]) -> Report:
    """`figures` of `spec` with all that belongs to them. `arguments` are those of the moulin command."""
    model = {"name": spec.name, "family": spec.family, "precision": spec.precision} if spec else None
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "command": shlex.join(["moulin", *_without_output(arguments)]),
        "model": model,
        **figures,
    }


def write_report(to: Path, arguments: Sequence[str], spec: ModelSpec, figures: Mapping[str, Any]) -> None:
    """`make_report` into the JSON file `to`."""
    write(make_report(arguments, spec, figures), [to])


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
    from moulin.evaluate.pages.html import to_html
    from moulin.evaluate.pages.markdown import to_markdown

    lines = list(lines)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".jsonl":
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        else:
            text = {".html": to_html, ".md": to_markdown}.get(file.suffix, to_json)(report)
        file.write_text(text, encoding="utf-8")


def read_report(file: Path) -> Report:
    """What `write` has written as JSON. Raises OptionsError."""
    try:
        report: Report = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionsError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError:
        report = {}
    if not isinstance(report, dict) or "command" not in report:
        raise OptionsError(f"{file} is no result of moulin bench", hint="it is written with --to FILE.json")
    return report


def to_json(report: Report) -> str:
    """Indented, but with every list of numbers, and every utterance, on a line of its own."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda match: re.sub(r"\s*\n\s*", " ", match[0]), text)
    text = re.sub(r'\{[^\[\]{}]*"words"[^\[\]{}]*\}', lambda match: re.sub(r"\s*\n\s*", " ", match[0]), text)
    return text + "\n"


def _without_output(arguments: Sequence[str]) -> list[str]:
    """`arguments` without `--to FILE`: where the figures went does not matter to who repeats them."""
    kept = [argument for argument in arguments if not argument.startswith("--to=")]
    while "--to" in kept:
        at = kept.index("--to")
        del kept[at : at + 2]
    return kept
