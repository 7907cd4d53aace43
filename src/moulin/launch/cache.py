"""The cache folder, for files that moulin can always build or fetch again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """moulin's folder under `$XDG_CACHE_HOME`, or under `~/.cache`; it need not exist yet."""
    base = environ.get("XDG_CACHE_HOME", "")
    # By the XDG specification a relative path is ignored.
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "moulin"
