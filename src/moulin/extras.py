"""How a person installs what is missing: no index has a package of this name, so it is installed from its folder."""

from __future__ import annotations


def install_hint(extras: str, *others: str) -> str:
    """For `extras` of pyproject.toml, separated by commas, and `others`: packages beside them."""
    return " ".join([f"pip install '.[{extras}]'", *others, "in moulin's folder"])
