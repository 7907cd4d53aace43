"""How much a service takes where nobody says otherwise. Imports nothing: the command line reads it."""

from __future__ import annotations

MAX_AUDIO_SEC = 120.0
"""Self-attention needs memory with the square of the length. A model may take less: see `ModelSpec.max_frames`."""

MAX_STREAMS = 1024
"""Streams open at once."""
