"""What fetching a model comes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model that is here now. Not `reached` says that nobody could tell whether there is a newer one."""

    folder: Path
    received_bytes: int
    reached: bool = True
