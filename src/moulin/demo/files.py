"""The models and the recordings that come with moulin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moulin.audio.decode import read_audio

_HERE = Path(__file__).parent
DEMO_MODEL = _HERE / "digits-en"
"""English connected digits, causal Zipformer2 exported for offline use, int8 encoder; see its MODEL_CARD.md."""

DEMO_STREAMING_MODEL = _HERE / "digits-en-streaming"
"""The same training exported for streaming: chunks of 320 ms, left context 128, fp32. (An int8 encoder rounds by the
largest value in the batch, so that what it hears would depend on who else is speaking.)"""

DEMO_MANIFEST = _HERE / "audio" / "manifest.jsonl"
"""14 phone numbers read by 14 people whom the model never heard."""


def demo_speech() -> list[NDArray[np.float32]]:
    """The samples of the recordings: float32 [n] each, 16 kHz, mono."""
    return [read_audio(file) for file in sorted(DEMO_MANIFEST.parent.glob("*.flac"))]
