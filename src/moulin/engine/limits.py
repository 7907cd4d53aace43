"""Default limits of a service. Imports nothing, because the command line reads it."""

from __future__ import annotations

MAX_AUDIO_SEC = 120.0
"""The longest utterance: self-attention needs memory with the square of the length. A model may take less: see
`ModelSpec.max_frames`."""

MAX_STREAMS = 1024
"""Streams open at once."""
