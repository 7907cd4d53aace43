"""The public Triton contract: tensor names that clients everywhere depend on.

WAV, WAV_LENS and TRANSCRIPTS are sherpa's, unchanged. WAV_INT16, OPTIONS, CHUNK_INDEX and RESULT are moulin's and
optional: a client that does not know them gets what it always got.
"""

from __future__ import annotations

MODEL_NAME = "transducer"


def streaming_name_beside(offline: str) -> str:
    """The streaming model's name on a server that has an offline one too; alone it is `MODEL_NAME`."""
    return f"{offline}_streaming"


STREAMING_MODEL_NAME = streaming_name_beside(MODEL_NAME)

WAV = "WAV"
"""FP32 [B, N]: mono, 16 kHz, in [-1, 1], padded at the end to the longest."""

WAV_INT16 = "WAV_INT16"
"""INT16 [B, N], optional, of streaming models and of offline ones in the layout `fused`: given instead of WAV, in 16
bits."""

WAV_LENS = "WAV_LENS"
"""INT32 [B, 1]: how many samples of each row are audio."""

OPTIONS = "OPTIONS"
"""BYTES [B, 1], optional: a JSON object of options for each row (`moulin.decoding.options`) or, with the first request
of a stream, for the stream (`moulin.streaming.options`)."""

CHUNK_INDEX = "CHUNK_INDEX"
"""UINT64 [1, 1], optional, of streaming models: the number of the request in its stream, from 0. Triton hands over the
requests of a stream that overlap in any order; with this the model notices."""

TRANSCRIPTS = "TRANSCRIPTS"
"""BYTES, UTF-8. Offline [B, 1]: the text of each row. Streaming [1]: the text since the stream's start.

Old clients join the items of the first row offline and of the whole array in streaming, so the shapes must differ.
"""

RESULT = "RESULT"
"""BYTES, JSON. Offline [B, 1]: `Transcript.to_dict()` of each row. Streaming [1]: `StreamUpdate.to_dict()`. Beside
them `request_id`, where the request has an id.

Like any output of Triton's it is returned where the request names it, and where the request names no outputs at all.
"""
