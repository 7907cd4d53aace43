"""A guard against raw PCM that is in another format than it is said to be: floats read as int16 are loud noise, in
which a recogniser hears words.

Sound in the right format is smooth: neighbouring samples are alike. In a wrong one it is rough, and smooth in the right
one, so both are looked at. Noise is rough in all formats, silence is nothing in any; neither is doubted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moulin.audio.pcm import PcmEncoding, pcm_to_float, sample_bytes
from moulin.audio.waveform import MAX_PEAK

LOOKED_AT_BYTES = 1 << 19
"""The data that is looked at: 16 s of int16 at 16 kHz, in a few milliseconds."""

_WINDOW_SEC = 2
_LOOKS = 3
"""Of a stream, the audio that is looked at, and how often: it may begin with silence."""

_LEAST_SAMPLES = 4000
_SMOOTH, _SMOOTHER = 0.7, 0.1
"""The least correlation of neighbouring samples in the right format, of speech 0.75 to 0.99; and how much more it is
than in the wrong one."""

_OTHER_LEVEL, _WIDE_LEVEL = 0.7, 4.0
"""The most that the right format's level may be of the wrong one's, which is that of noise; and for samples of more
than two bytes, which are hardly taken by mistake."""

_LEAST_LEVEL = 1e-4
_LEAST_FILLED = 0.2
"""The share of bytes other than 0, below which there is next to no sound."""

_NARROW = ("u8", "s8", "mulaw", "alaw")
"""Formats of one byte a sample. They are not doubted: in them a high tone looks as rough as noise."""

_OTHERS: tuple[PcmEncoding, ...] = ("f32le", "s16le", "s16be", "s32le", "s24le", "u8", "s8", "mulaw", "alaw", "f64le")


def format_doubt(data: bytes, encoding: PcmEncoding, channels: int = 1) -> str | None:
    """A sentence on what `data`, the first samples of audio with interleaved channels, seems to be; None without doubt.

    Half a second is enough to see it, less is not looked at.
    """
    data = data[:LOOKED_AT_BYTES]
    if encoding in _NARROW or np.count_nonzero(np.frombuffer(data, np.uint8)) < _LEAST_FILLED * len(data):
        return None
    with np.errstate(all="ignore"):  # of floats, most bytes are none
        return _doubt(data, encoding, channels)


class FormatGuard:
    """Looks at the first seconds of a stream of PCM for another sample format than was said."""

    def __init__(self, encoding: PcmEncoding, sample_rate: int, channels: int = 1) -> None:
        self._encoding, self._channels = encoding, channels
        frame_bytes = channels * sample_bytes(encoding)
        self._window = min(_WINDOW_SEC * sample_rate, LOOKED_AT_BYTES // frame_bytes) * frame_bytes
        self._data, self._looks = bytearray(), 0

    def accept(self, data: bytes) -> str | None:
        """A sentence, once, where the audio until now seems to be in another format."""
        if self._looks == _LOOKS:
            return None
        self._data += data
        return self._looked() if len(self._data) >= self._window else None

    def rest(self) -> str | None:
        """The same of a stream that has ended: it may have been short."""
        return self._looked() if self._looks < _LOOKS else None

    def _looked(self) -> str | None:
        looked_at = bytes(self._data[: self._window])
        del self._data[: self._window]
        doubt = format_doubt(looked_at, self._encoding, self._channels)
        self._looks = _LOOKS if doubt else self._looks + 1
        if self._looks == _LOOKS:
            self._data.clear()
        return doubt


def _doubt(data: bytes, encoding: PcmEncoding, channels: int) -> str | None:
    found = _samples(data, encoding)
    if found.size < _LEAST_SAMPLES * channels:
        return None
    level, alike = _level(found), _alike(found, channels)
    if level < _LEAST_LEVEL or alike > 1 - _SMOOTHER:
        return None
    likenesses = {other: _likeness(data, other, level, channels) for other in _OTHERS if other != encoding}
    other = max(likenesses, key=likenesses.__getitem__)
    if likenesses[other] < max(_SMOOTH, alike + _SMOOTHER):
        return None
    return f"the samples seem to be {other}, not {encoding}: they were heard as noise"


def _likeness(data: bytes, other: PcmEncoding, level: float, channels: int) -> float:
    """How alike neighbouring samples are if `data` is `other`; 0 where it cannot be. `level` is that of the noise."""
    samples = _samples(data, other)
    loudest = level * (_WIDE_LEVEL if sample_bytes(other) > 2 else _OTHER_LEVEL)
    if samples.size < _LEAST_SAMPLES // 4 or not _LEAST_LEVEL <= _level(samples) <= loudest:
        return 0.0
    if other == "s32le" and not _has_low_halves(data):
        return 0.0
    return _alike(samples, channels)


def _samples(data: bytes, encoding: PcmEncoding) -> NDArray[np.float32]:
    return pcm_to_float(data[: len(data) // sample_bytes(encoding) * sample_bytes(encoding)], encoding)


def _level(samples: NDArray[np.float32]) -> float:
    """The root of the mean square; 0 where samples are no audio of this format at all."""
    if samples.size == 0 or not np.isfinite(samples).all() or np.abs(samples).max(initial=0) > MAX_PEAK:
        return 0.0
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean()))


def _alike(samples: NDArray[np.float32], channels: int) -> float:
    """The correlation of samples with the next ones of the same channel."""
    frames = samples[: len(samples) // channels * channels].reshape(-1, channels).astype(np.float64)
    frames -= frames.mean(axis=0)
    energy = float((frames**2).sum())
    return float((frames[1:] * frames[:-1]).sum()) / energy if energy > 0 else 0.0


def _has_low_halves(data: bytes) -> bool:
    """Whether every other int16 is the low half of a larger number: much rougher than the high halves. Those of a high
    tone in int16 are alike."""
    low, high = np.frombuffer(data[: len(data) // 4 * 4], "<i2").astype(np.float32).reshape(-1, 2).T
    return bool(np.abs(low).max() <= 1) or _alike(low, 1) < 0.5 * _alike(high, 1)
