"""What published repositories hold (tests/data/published-models*.json)."""

from __future__ import annotations

import json
from pathlib import Path

_DATA = Path(__file__).parents[1] / "data"


def _read(name: str) -> dict[str, list[str]]:
    listings: dict[str, list[str]] = json.loads((_DATA / name).read_text())["listings"]
    return listings


LISTINGS = _read("published-models.json") | _read("published-models-more.json")
