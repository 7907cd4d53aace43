"""The three ONNX files of one model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class OnnxFiles:
    """Where they are."""

    encoder: Path
    decoder: Path
    joiner: Path
