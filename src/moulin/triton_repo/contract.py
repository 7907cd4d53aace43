"""The public Triton contract: tensor names that clients everywhere depend on (DESIGN section 3).

WAV, WAV_LENS and TRANSCRIPTS are sherpa's, unchanged. OPTIONS and RESULT are moulin's and optional: a client that
does not know them gets what it always got.
"""

from __future__ import annotations

MODEL_NAME = "transducer"

WAV = "WAV"
"""FP32 [B, N]: mono, 16 kHz, in [-1, 1], padded at the end to the longest."""

WAV_LENS = "WAV_LENS"
"""INT32 [B, 1]: how many samples of each row are audio."""

OPTIONS = "OPTIONS"
"""BYTES [B, 1], optional: a JSON object of decoding options for each row (`moulin.decoding.options`)."""

TRANSCRIPTS = "TRANSCRIPTS"
"""BYTES [B, 1]: the text of each row, UTF-8."""

RESULT = "RESULT"
"""BYTES [B, 1]: `Transcript.to_dict()` of each row as JSON. Like any output of Triton's it comes where the request
names it, and where the request names no outputs at all."""
