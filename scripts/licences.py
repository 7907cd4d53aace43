#!/usr/bin/env python3
"""Writes docs/reference/licences.md: the licences of moulin's dependencies, direct and indirect, by their own metadata.

Run it in an environment with all of them (`make test` makes one). Names and licences of packages that are not
installed here stay as they are in the file. With --check it changes nothing and exits with 1 where a package that is
installed here is missing in the file.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docs" / "reference" / "licences.md"
HEAD = """<!-- Written by scripts/licences.py. -->

# Licences

moulin is Apache-2.0, its demo models CC BY-SA 4.0. What it depends on, directly or through others, says of itself:

| package | licence |
|---|---|
"""
_ROW = re.compile(r"^\| (?P<name>[a-z0-9-]+) \| (?P<licence>.*) \|$", re.MULTILINE)
_OURS = {"moulin"}


def main() -> None:
    found = {name: licence_of(dist) for name, dist in installed("moulin").items() if name not in _OURS}
    old = FILE.read_text().removeprefix(HEAD) if FILE.exists() else ""
    written = {row["name"]: row["licence"] for row in _ROW.finditer(old)}
    if sys.argv[1:] == ["--check"]:
        if missing := sorted(found.keys() - written.keys()):
            sys.exit(f"{FILE.relative_to(ROOT)} has no {', '.join(missing)} (hint: run scripts/licences.py)")
        return
    rows = sorted({**written, **found}.items())
    FILE.write_text(HEAD + "".join(f"| {name} | {licence} |\n" for name, licence in rows))


def installed(root: str) -> dict[str, Distribution]:
    """The distributions that `root` requires with any of its extras, and they with those asked for, where installed."""
    extras = distribution(root).metadata.get_all("Provides-Extra", ())
    waiting = [Requirement(f"{root}[{','.join(extras)}]")]
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (canonicalize_name(wanted.name), extra) in seen:
                continue
            seen.add((canonicalize_name(wanted.name), extra))
            try:
                dist = distribution(wanted.name)
            except PackageNotFoundError:
                continue
            found[canonicalize_name(wanted.name)] = dist
            asked = map(Requirement, dist.requires or ())
            waiting += [one for one in asked if one.marker is None or one.marker.evaluate({"extra": extra})]
    return found


def licence_of(dist: Distribution) -> str:
    """The licence by the package's metadata: the expression, the classifiers, or the first line of its text."""
    metadata = dist.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classified = [
        line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", ()) if line.startswith("License ::")
    ]
    if classified := [name for name in classified if name != "OSI Approved"]:
        return ", ".join(classified)
    lines = [line.strip() for line in str(metadata.get("License") or "").splitlines() if line.strip()]
    return lines[0][:80].replace("|", "/") if lines else "see its files"


if __name__ == "__main__":
    main()
