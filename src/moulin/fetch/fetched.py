"""What fetching a model comes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moulin.bundle.choice import Mode


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model that is here now: its folder, or where this holds several its encoder or checkpoint.

    Not `reached` says that nobody could tell whether there is a newer one. `mode` is what the published names tell of
    it, `notes` are lines for people about what was passed over.
    """

    folder: Path
    received_bytes: int
    reached: bool = True
    mode: Mode | None = None
    notes: tuple[str, ...] = ()
