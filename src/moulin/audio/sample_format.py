"""A guard against raw PCM that is in another format than it is said to be: floats read as int16 are loud noise, in
which a recogniser hears words.

Sound in the right format is smooth: neighbouring samples are alike. In a wrong one it is rough, next to silent, or less
smooth and at another speed; so both are looked at. Noise is rough in all formats, silence is nothing in any; neither is
doubted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from moulin.audio.pcm import PcmEncoding, pcm_to_float, sample_bytes, scale_to_float
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

_OTHER_LEVEL = 0.7
"""The most that the right format's level may be of the wrong one's, which is that of noise. Formats of more than two
bytes are hardly taken by mistake, at any level."""

_LEAST_LEVEL, _SOUND_LEVEL, _LEAST_WIDE_LEVEL = 1e-4, 1e-3, 1e-6
"""The level below which there is next to no sound, that from which there is some, and the least of s32le to look at."""

_LEAST_FILLED = 0.2
"""The share of bytes other than 0, below which there is next to no sound."""

_SAME_LEVEL, _FINER = (0.8, 1.25), 0.5
"""Of samples that are two of the right format: the ratio of levels, and how much less neighbours differ in that."""

_SAME_PAIRS, _VERY_SMOOTH, _CONSTANT = 0.999, 0.95, 0.999
_TONE = 0.5
"""The correlation from which, of either sign, samples are sound: below 0 a high tone. In a wrong format it is about 0;
of those of more bytes that is looked at elsewhere."""

_UNLIKE_BYTES = 0.5
"""The share of even bytes that are other ones than the odd bytes are, from which the two are halves of samples."""

_NARROW = ("u8", "s8", "mulaw", "alaw")
"""Formats of one byte a sample."""

_NARROW_LEVEL = 0.3
"""The most that the level in the right narrow format may be of that in a wrong one."""

_UNSCALED = "f32le up to 32768"


def _swapped(encoding: PcmEncoding) -> Callable[[bytes], NDArray[np.float32]]:
    """Samples of the other byte order."""
    width = sample_bytes(encoding)
    return lambda data: pcm_to_float(np.frombuffer(data, np.uint8).reshape(-1, width)[:, ::-1].tobytes(), encoding)


_SCALE = np.float32(1 / 32768)
_ONLY_SEEN: dict[str, tuple[int, Callable[[bytes], NDArray[np.float32]]]] = {
    "u16le": (2, lambda data: scale_to_float(np.frombuffer(data, "<u2"))),
    "s24be": (3, _swapped("s24le")),
    "s32be": (4, _swapped("s32le")),
    "f32be": (4, _swapped("f32le")),
    _UNSCALED: (4, lambda data: pcm_to_float(data, "f32le") * _SCALE),
    "f64be": (8, _swapped("f64le")),
}
"""Formats that are told but cannot be chosen: the bytes of a sample, and samples [n] of bytes."""

_OTHERS = ("f32le", "s16le", "s16be", "s32le", "s24le", "u8", "s8", "mulaw", "alaw", "f64le", *_ONLY_SEEN)


def format_doubt(data: bytes, encoding: PcmEncoding, channels: int = 1) -> str | None:
    """A sentence on what `data`, the first samples of audio with interleaved channels, seems to be; None without doubt.

    Half a second is enough to see it, less is not looked at.
    """
    data = data[:LOOKED_AT_BYTES]
    if np.count_nonzero(np.frombuffer(data, np.uint8)) < _LEAST_FILLED * len(data):
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

    @property
    def is_done(self) -> bool:
        """Whether it looks at no more."""
        return self._looks == _LOOKS

    def accept(self, data: bytes) -> str | None:
        """A sentence, once, where the audio until now seems to be in another format."""
        if self.is_done:
            return None
        self._data += data
        return self._looked() if len(self._data) >= self._window else None

    def rest(self) -> str | None:
        """The same of a stream that has ended: it may have been short."""
        return None if self.is_done else self._looked()

    def _looked(self) -> str | None:
        looked_at = bytes(self._data[: self._window])
        del self._data[: self._window]
        doubt = format_doubt(looked_at, self._encoding, self._channels)
        self._looks = _LOOKS if doubt else self._looks + 1
        if self.is_done:
            self._data.clear()
        return doubt


def _doubt(data: bytes, encoding: PcmEncoding, channels: int) -> str | None:
    found = _samples(data, encoding)
    if found.size < _LEAST_SAMPLES * channels:
        return None
    level, alike = _level(found), _alike(found, channels)
    if alike < -_TONE or _is_any_smooth(found, channels):
        return None
    heard = ": they were heard as noise"
    if encoding in _NARROW:
        other = _hidden_in_bytes(data, alike, channels) or _other_narrow(data, encoding, level, alike, channels)
    elif level < _LEAST_LEVEL:
        other, heard = _hidden_in_silence(data, encoding, level, channels), ""
    elif halved := _hidden_halves(data, encoding, level, alike, channels):
        return f"the samples seem to be {halved}, not {encoding}: they were heard at twice the speed"
    elif channels == 1 and _is_twice(found):
        return "every sample is there twice: the audio seems to have 2 channels, or half the rate"
    else:
        other = _smoother(data, encoding, level, alike, channels)
    return None if other is None else f"the samples seem to be {other}, not {encoding}{heard}"


def _is_any_smooth(samples: NDArray[np.float32], channels: int) -> bool:
    """Whether one of several channels is smooth sound; another may be noise."""
    frames = samples[: len(samples) // channels * channels].reshape(-1, channels)
    return channels > 1 and any(_alike(channel, 1) > 1 - _SMOOTHER for channel in frames.T)


def _smoother(data: bytes, encoding: str, level: float, alike: float, channels: int) -> str | None:
    """The format in which rough samples of that `level` are smooth."""
    if alike > 1 - _SMOOTHER:
        return None
    likenesses = {other: _likeness(data, other, level, channels) for other in _OTHERS if other != encoding}
    other = max(likenesses, key=likenesses.__getitem__)
    return other if likenesses[other] >= max(_SMOOTH, alike + _SMOOTHER) else None


def _likeness(data: bytes, other: str, level: float, channels: int) -> float:
    """How alike neighbouring samples are if `data` is `other`; 0 where it cannot be. `level` is that of the noise."""
    samples = _samples(data, other)
    loudest = MAX_PEAK if _width(other) > 2 else _OTHER_LEVEL * level
    if samples.size < _LEAST_SAMPLES // 4 or not _LEAST_LEVEL <= _level(samples) <= loudest:
        return 0.0
    if other in ("s32le", "s32be") and not _has_low_halves(data, "<i2" if other == "s32le" else ">i2", channels):
        return 0.0
    return _alike(samples, channels)


def _hidden_in_silence(data: bytes, encoding: str, level: float, channels: int) -> str | None:
    """The format in which samples that are next to silence, or no numbers, are smooth sound. Floats are so in s32le.
    Integers of fewer bytes are not looked at: quiet ones are few different numbers, alike in other formats too."""
    if encoding not in ("f32le", "f64le") and (encoding != "s32le" or level < _LEAST_WIDE_LEVEL):
        return None
    others = [other for other in _OTHERS if other not in (encoding, "s32le", "s24le")]
    likenesses = {
        other: _likeness(data, other, 1.0, channels)
        for other in others
        if _level(_samples(data, other)) >= _SOUND_LEVEL
    }
    other = max(likenesses, key=likenesses.__getitem__, default=None)
    return other if other is not None and likenesses[other] >= _SMOOTH else None


def _hidden_halves(data: bytes, encoding: str, level: float, alike: float, channels: int) -> str | None:
    """The format of half the width, if two samples of that have been taken for one: they are smoother, as loud."""
    half = {"s32le": "s16le", "s16le": "s8", "s16be": "s8"}.get(encoding)
    if half is None:
        return None
    samples = _samples(data, half)
    low, high = _SAME_LEVEL
    if not low * level <= _level(samples) <= high * level:
        return None
    halves_alike = _alike(samples, channels)
    return half if halves_alike >= _SMOOTH and 1 - halves_alike < _FINER * (1 - alike) else None


def _hidden_in_bytes(data: bytes, alike: float, channels: int) -> str | None:
    """The format of two bytes of which each was taken for a sample: its low and high bytes are different ones."""
    bytes_ = np.frombuffer(data[: len(data) // (2 * channels) * 2 * channels], np.uint8).reshape(-1, 2, channels)
    even, odd = (np.bincount(bytes_[:, parity].ravel(), minlength=256) for parity in (0, 1))
    if alike > _TONE or np.abs(even - odd).sum() < _UNLIKE_BYTES * 2 * even.sum():
        return None
    likenesses = {other: _likeness(data, other, 1.0, channels) for other in ("s16le", "s16be")}
    other = max(likenesses, key=likenesses.__getitem__)
    return other if likenesses[other] >= _SMOOTH else None


def _other_narrow(data: bytes, encoding: str, level: float, alike: float, channels: int) -> str | None:
    """The format of one byte in which samples are much quieter and smoother: noise for speech in another one is mostly
    loud, not rough."""
    for other in _NARROW:
        samples = _samples(data, other)
        is_quiet = other != encoding and _SOUND_LEVEL <= _level(samples) <= _NARROW_LEVEL * level
        if is_quiet and 1 - _alike(samples, channels) < _FINER * (1 - alike):
            return other
    return None


def _is_twice(samples: NDArray[np.float32]) -> bool:
    """Whether samples are pairs of equal ones: two channels. Pairs that are not smooth are speech of a telephone, whose
    every sample was repeated for twice the rate."""
    pairs = samples[: len(samples) // 2 * 2].reshape(-1, 2)
    same = np.mean(pairs[:, 0] == pairs[:, 1])
    return bool(same >= _SAME_PAIRS and _VERY_SMOOTH <= _alike(pairs[:, 0], 1) < _CONSTANT)


def _samples(data: bytes, encoding: str) -> NDArray[np.float32]:
    data = data[: len(data) // _width(encoding) * _width(encoding)]
    return _ONLY_SEEN[encoding][1](data) if encoding in _ONLY_SEEN else pcm_to_float(data, cast(PcmEncoding, encoding))


def _width(encoding: str) -> int:
    """Bytes of a sample."""
    return _ONLY_SEEN[encoding][0] if encoding in _ONLY_SEEN else sample_bytes(cast(PcmEncoding, encoding))


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


def _has_low_halves(data: bytes, half: str, channels: int) -> bool:
    """Whether every other int16 is the low half of a larger number: much rougher than the high halves. Those of a high
    tone in int16 are alike."""
    halves = np.frombuffer(data[: len(data) // 4 * 4], half).astype(np.float32).reshape(-1, 2).T
    low, high = halves if half == "<i2" else halves[::-1]
    return bool(np.abs(low).max() <= 1) or _alike(low, channels) < 0.5 * _alike(high, channels)
