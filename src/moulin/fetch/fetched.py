"""The result of fetching a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moulin.bundle.choice import Mode


@dataclass(frozen=True, slots=True)
class Fetched:
    """A fetched model: its folder, or its encoder or checkpoint where the folder holds several models.

    `reached` is False where the hub could not be asked for a newer revision. `mode` comes from the published names;
    `notes` are lines for the user about files that were not chosen.
    """

    folder: Path
    received_bytes: int
    reached: bool = True
    mode: Mode | None = None
    notes: tuple[str, ...] = ()
