"""The model and the recordings that come with moulin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
DEMO_MODEL = _HERE / "digits-en"
"""English connected digits, causal Zipformer2 exported for offline use, int8 encoder; see its MODEL_CARD.md."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording and what is said in it."""

    audio: Path
    text: str


def demo_clips() -> Iterator[Clip]:
    """14 phone numbers read by 14 people whom the model never heard."""
    for line in (_HERE / "audio" / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        yield Clip(_HERE / "audio" / entry["audio"], entry["text"])
