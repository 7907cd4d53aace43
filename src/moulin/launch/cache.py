"""The cache folder, for files that moulin can always build or fetch again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from moulin.errors import LaunchError


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """moulin's folder under `$XDG_CACHE_HOME`, or under `~/.cache`; it need not exist yet.

    Raises LaunchError for a user without a home, as in a container that runs under a number alone."""
    base = environ.get("XDG_CACHE_HOME", "")
    # By the XDG specification a relative path is ignored.
    if base.startswith("/"):
        return Path(base) / "moulin"
    try:
        return Path.home() / ".cache" / "moulin"
    except RuntimeError as error:
        raise LaunchError(
            "There is no cache folder: the user has no home", hint="set XDG_CACHE_HOME or HOME to a folder of its own"
        ) from error
