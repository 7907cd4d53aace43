"""Checksums, from the hub and from users."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Digest:
    """A checksum. `git` is the SHA-1 of a git blob (its length and content); the hub's large files have `sha256`."""

    kind: Literal["sha256", "git"]
    value: str

    def of(self, file: Path) -> str:
        """The digest of `file`, of this kind."""
        computed = hashlib.sha256() if self.kind == "sha256" else hashlib.sha1(usedforsecurity=False)
        if self.kind == "git":
            computed.update(f"blob {file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                computed.update(piece)
        return computed.hexdigest()
