"""Where moulin keeps files that it can always build again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """moulin's folder under `$XDG_CACHE_HOME`, or under `~/.cache`; it need not exist yet."""
    base = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification tells us to ignore a relative path.
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "moulin"
