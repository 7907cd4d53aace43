"""Messages between a caller, the fork server and the processes that decode.

An order to the server is one datagram: an `Order` in JSON, with the descriptors of the recording and of a socket for
the result. On that socket come messages of a JSON header and samples. `{"alive": 1}` comes back as it is.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from moulin.arrays import Floats
from moulin.audio.selection import MIX, Selection
from moulin.errors import AudioError, AudioTooLong, EngineError, MoulinError

LENGTHS = struct.Struct("<II")
"""What each message begins with: the bytes of its header, and of its samples."""

ERRORS: dict[str, type[MoulinError]] = {
    "too_long": AudioTooLong,
    "audio": AudioError,
    "engine": EngineError,
    "other": MoulinError,
}
"""Errors by their name in a header. Each comes before those that it is one of."""

UNEXPECTED = "unexpected"
"""The name of a fault of our own."""

MAX_ORDER_BYTES = 1 << 16
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class DecodingLimits:
    """What one recording may use."""

    cpu_sec: float = 600.0
    """CPU time at most."""
    first_cpu_sec: float = 5.0
    """CPU time until the first audio comes."""
    cpu_sec_a_sec: float = 0.1
    """CPU time for each second of audio that has come."""
    memory_bytes: int = 1 << 30
    """Memory beside the libraries."""

    def allowed_cpu_sec(self, decoded_sec: float) -> float:
        """The CPU time that may have been used when so much audio has come."""
        return min(self.cpu_sec, self.first_cpu_sec + self.cpu_sec_a_sec * decoded_sec)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be decoded, and how."""

    number: int
    name: str
    """The recording's name in error messages."""
    max_utterance_sec: float | None
    """No piece is longer; None for all audio in blocks, as it is decoded, instead of pieces with speech."""
    max_audio_sec: float
    selection: Selection = MIX
    limits: DecodingLimits = DecodingLimits()
    peaks: bool = False
    """Whether each message has the peaks of what was decoded since the last, see `PeaksOf`."""
    live: bool = False
    """Whether the recording is a pipe or socket that is still being written: all audio, mixed, as soon as it comes."""

    def to_bytes(self) -> bytes:
        fields = dataclasses.asdict(self) | {"name": self.name[:_MAX_NAME]}
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        fields = json.loads(data)
        held = {"selection": Selection(**fields["selection"]), "limits": DecodingLimits(**fields["limits"])}
        return cls(**fields | held)


def packed(header: dict[str, Any], samples: Floats | None = None) -> tuple[bytes, memoryview]:
    """A message in two parts: lengths with the header, and the samples."""
    encoded = json.dumps(header).encode()
    content = memoryview(b"") if samples is None else np.ascontiguousarray(samples).data.cast("B")
    return LENGTHS.pack(len(encoded), content.nbytes) + encoded, content
