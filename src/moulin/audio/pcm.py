"""Raw PCM samples, as sound cards, telephones and WebSocket clients send them, to floats in [-1, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from moulin.errors import AudioError

PcmEncoding = Literal["u8", "s8", "s16le", "s16be", "s24le", "s32le", "f32le", "f64le", "mulaw", "alaw"]

_DTYPES = {
    "u8": "u1", "s8": "i1", "s16le": "<i2", "s16be": ">i2", "s32le": "<i4", "f32le": "<f4", "f64le": "<f8",
}  # fmt: skip


def sample_bytes(encoding: PcmEncoding) -> int:
    """Bytes of one sample of one channel. Raises AudioError for an unknown encoding."""
    if encoding in ("mulaw", "alaw"):
        return 1
    if encoding == "s24le":
        return 3
    if encoding not in _DTYPES:
        raise AudioError(f"expected a PCM encoding of {', '.join(get_args(PcmEncoding))}, got {encoding!r}")
    return np.dtype(_DTYPES[encoding]).itemsize


@dataclass(frozen=True, slots=True)
class RawFormat:
    """The encoding, rate in Hz and channel count of samples without a header."""

    encoding: PcmEncoding
    sample_rate: int
    channels: int = 1

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * sample_bytes(self.encoding)


def pcm_frames(data: bytes, raw: RawFormat) -> NDArray[np.float32]:
    """Samples [n, channels] of headerless PCM. Raises AudioError where `data` does not hold whole frames."""
    if raw.channels < 1:
        raise AudioError(f"expected at least 1 channel of PCM, got {raw.channels}")
    if len(data) % raw.frame_bytes:
        raise AudioError(
            f"expected whole frames of {raw.frame_bytes} bytes ({raw.encoding}, {raw.channels} channel(s)) of PCM,"
            f" got {len(data)} bytes",
            hint="a frame was split, or the encoding or the number of channels differs from the data's",
        )
    return pcm_to_float(data, raw.encoding).reshape(-1, raw.channels)


def pcm_to_float(data: bytes, encoding: PcmEncoding) -> NDArray[np.float32]:
    """Samples [N] of `data`, whose length is a multiple of `sample_bytes(encoding)`; channels stay interleaved."""
    if encoding in ("mulaw", "alaw"):
        table = _mulaw_table() if encoding == "mulaw" else _alaw_table()
        return table[np.frombuffer(data, np.uint8)]
    if encoding == "s24le":
        # Three bytes become the upper three of an int32: the sign comes out right and the scale is s32le's.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return scale_to_float(wide.view("<i4")[:, 0])
    return scale_to_float(np.frombuffer(data, _DTYPES[encoding]))


def scale_to_float(samples: NDArray[np.generic]) -> NDArray[np.float32]:
    """Integers of any width to float32 in [-1, 1) (unsigned ones are centred first); floats keep their scale."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a double beyond float32 becomes inf, which the caller refuses
            return samples.astype(np.float32)
    full_scale = np.float32(2.0 ** (8 * samples.dtype.itemsize - 1))
    floats = samples.astype(np.float32)
    if samples.dtype.kind == "u":
        floats -= full_scale
    floats /= full_scale
    return floats


@cache
def _mulaw_table() -> NDArray[np.float32]:
    """The value of each of the 256 mu-law bytes (ITU-T G.711, on the usual 16-bit scale)."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = ((code >> 4) & 7).astype(np.int32), (code & 15).astype(np.int32)
    magnitude = (((mantissa << 3) + 132) << exponent) - 132
    return (np.where(code & 0x80, -magnitude, magnitude) / 32768).astype(np.float32)


@cache
def _alaw_table() -> NDArray[np.float32]:
    """The value of each of the 256 A-law bytes (ITU-T G.711, on the usual 16-bit scale)."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = ((code >> 4) & 7).astype(np.int32), (code & 15).astype(np.int32)
    # The lowest segment is linear; each later one has an implied leading bit and twice the step.
    segment = ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0)
    magnitude = np.where(exponent == 0, (mantissa << 4) + 8, segment)
    return (np.where(code & 0x80, magnitude, -magnitude) / 32768).astype(np.float32)
