"""The seven tiny models in tests/data/bundles, one an architecture, with random weights and odd sizes on purpose."""

from __future__ import annotations

from pathlib import Path

BUNDLES = Path(__file__).parent / "data" / "bundles"
OFFLINE = ("conformer-offline", "zipformer-offline", "zipformer2-offline")
STREAMING = ("conformer-streaming", "lstm-streaming", "zipformer-streaming", "zipformer2-streaming")
