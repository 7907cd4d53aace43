"""The file that a benchmark's raw figures go into: with where, when and with what they were measured."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from moulin.bundle.spec import ModelSpec
from moulin.evaluate.machine import machine, versions


def write_report(to: Path, arguments: Sequence[str], spec: ModelSpec, figures: Mapping[str, Any]) -> None:
    """Write `figures` of `spec` as JSON. `arguments` are those of the moulin command that measured them."""
    report = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "command": shlex.join(["moulin", *_without_output(arguments)]),
        "model": {"name": spec.name, "family": spec.family, "precision": spec.precision},
        **figures,
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(report, indent=1) + "\n")


def _without_output(arguments: Sequence[str]) -> list[str]:
    """`arguments` without `--to FILE`: where the figures went does not matter to who repeats them."""
    kept = list(arguments)
    while "--to" in kept:
        at = kept.index("--to")
        del kept[at : at + 2]
    return kept
