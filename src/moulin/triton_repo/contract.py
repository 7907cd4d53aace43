"""The public Triton contract: tensor names that clients everywhere depend on.

WAV, WAV_LENS and TRANSCRIPTS are sherpa's, unchanged. WAV_INT16, OPTIONS, CHUNK_INDEX and RESULT are moulin's and
optional: a client that does not know them gets what it always got. The tensors of lanes, which carry many streams in
one request, are optional too.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

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

BUNDLE = "BUNDLE"
"""UINT64 [1, 1], of streaming models: makes a Triton sequence a lane of many streams. The number of the request in its
lane, from 1."""

STREAMS = "STREAMS"
"""UINT64 [1, M]: the streams of a bundle's rows, all different, by numbers of the lane's own."""

EVENTS = "EVENTS"
"""UINT8 [1, M]: bits of `Event` for each row."""

STREAM_OPTIONS = "STREAM_OPTIONS"
"""BYTES [1, K]: a JSON object for each row with `Event.OPTIONS`, in the order of the rows."""

CHUNK_LENS = "CHUNK_LENS"
"""INT32 [1, M]: the samples of each row, 0 included."""

CHUNKS = "CHUNKS"
"""INT16 [1, total]: the samples of all rows behind each other."""

UPDATE_STREAMS = "UPDATE_STREAMS"
"""UINT64 [1, R]: the streams with news since the lane's last reply; one may occur more than once."""

UPDATE_KINDS = "UPDATE_KINDS"
"""UINT8 [1, R]: `Kind`."""

UPDATE_LENS = "UPDATE_LENS"
"""INT32 [1, R]: the bytes of each one's JSON in UPDATES."""

UPDATES = "UPDATES"
"""UINT8 [1, total]: JSON of `StreamUpdate.to_dict()`, or of an error: `code`, `error`, `hint`."""

DECODED_STREAMS = "DECODED_STREAMS"
"""UINT64 [1, R']: the streams of which more has been decoded since the lane's last reply."""

DECODED = "DECODED"
"""UINT64 [1, R']: how many samples of each have been decoded as far as they go."""

LANE = "LANE"
"""UINT8 [1, n]: JSON of `instance` (its name), `capacity` and `open` (its streams), and `bundle`, as it was sent."""


class Event(IntFlag):
    """What a row of a bundle does beside bringing audio."""

    START = 1
    END = 2
    """No more audio comes; the result follows."""
    OPTIONS = 4
    """Options, with the start or at any time."""
    DROP = 8
    """Forget the stream and its result."""
    FINALIZE = 16
    """Close the segment when the audio so far has been decoded; the stream goes on."""


class Kind(IntEnum):
    """What an update of a lane's reply is."""

    TEXT = 0
    """The open segment has changed."""
    FINAL = 1
    """A segment was closed, or the speaker has paused."""
    CLOSED = 2
    """The stream has ended as asked: its last update."""
    FAILED = 3
    """The stream has ended with an error."""
    REFUSED = 4
    """A row was refused, and has changed nothing."""
