"""The models and the recordings that come with moulin."""

from __future__ import annotations

from pathlib import Path

from moulin.evaluate.manifest import Utterance, read_manifest

_HERE = Path(__file__).parent
DEMO_MODEL = _HERE / "digits-en"
"""English connected digits, causal Zipformer2 exported for offline use, int8 encoder; see its MODEL_CARD.md."""

DEMO_STREAMING_MODEL = _HERE / "digits-en-streaming"
"""The same training exported for streaming: chunks of 320 ms, left context 128, fp32. (An int8 encoder rounds by the
largest value in the batch, so that what it hears would depend on who else is speaking.)"""

DEMO_MANIFEST = _HERE / "audio" / "manifest.jsonl"
"""14 phone numbers read by 14 people whom the model never heard."""


def demo_clips() -> list[Utterance]:
    """The recordings and what is said in them."""
    return read_manifest(DEMO_MANIFEST)
