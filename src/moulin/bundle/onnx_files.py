"""The three ONNX files of one model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class OnnxFiles:
    """Paths of the three files."""

    encoder: Path
    decoder: Path
    joiner: Path
