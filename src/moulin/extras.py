"""Hints for installing missing extras. moulin is on no package index, so it is installed from its folder."""

from __future__ import annotations


def install_hint(extras: str, *others: str) -> str:
    """The pip command for `extras` of pyproject.toml, separated by commas, and `others`: further packages."""
    return " ".join([f"pip install '.[{extras}]'", *others, "in moulin's folder"])
