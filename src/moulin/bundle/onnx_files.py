"""The three ONNX files of one model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CTC_OUTPUT = "ctc_log_probs"
"""The last output of an encoder that moulin exports with its CTC head: log-probabilities [N, T', vocab_size]. After
Icefall's own outputs, which sherpa-onnx takes by position."""


@dataclass(frozen=True, slots=True)
class OnnxFiles:
    """Paths of the three files."""

    encoder: Path
    decoder: Path
    joiner: Path
