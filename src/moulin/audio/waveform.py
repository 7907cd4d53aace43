"""The definition of a waveform: float32 samples [N] of one channel in [-1, 1], 16,000 a second."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moulin.errors import AudioError

SAMPLE_RATE = 16000

# Lossy codecs and resampling overshoot 1 a little and float recordings may exceed it, but audio scaled to [-1, 1] does
# not come near 16 (+24 dB), while unscaled 16-bit speech always exceeds it.
MAX_PEAK = 16.0

# The length of a chunk of live speech; for longer products the BLAS library would start threads.
_MAX_DOT = 8192


def check_waveform(samples: ArrayLike, *, what: str = "waveform") -> NDArray[np.float32]:
    """Return `samples` as a contiguous float32 array [N], without a copy where it already is one.

    Floats of any width are taken as they are; int16 is divided by 32768. N may be 0. `what` names the audio in
    the error message. Costs two passes over the samples, minimum and maximum; one pass where they are few and quiet.

    Raises AudioError for another shape or dtype, for NaN or infinity, and for floats on an integer scale.
    """
    array = np.asarray(samples)
    if array.ndim != 1:
        raise AudioError(
            f"{what}: expected samples of one channel with shape [N], got shape {list(array.shape)}",
            hint="average the channels first, and pass one utterance at a time",
        )
    if array.dtype == np.int16:
        return as_floats(array)
    if array.size == 0:
        return np.zeros(0, np.float32)
    if array.dtype.kind != "f":
        raise AudioError(
            f"{what}: expected float32 or int16 samples, got {array.dtype}",
            hint="convert to float32 in [-1, 1]",
        )
    # One pass where it suffices: with an energy of at most MAX_PEAK**2 no sample exceeds the peak, and none is NaN.
    if array.size <= _MAX_DOT and array.dtype == np.float32:
        with np.errstate(over="ignore", invalid="ignore"):  # numpy 2.5 warns of infinity and NaN, handled below
            energy = float(np.dot(array, array))
        if energy <= MAX_PEAK**2:
            return np.ascontiguousarray(array)
    low, high = float(array.min()), float(array.max())  # NaN passes through both and fails the comparison
    if not max(-low, high) <= MAX_PEAK:
        raise _diagnose(array, max(-low, high), what)
    return np.ascontiguousarray(array, dtype=np.float32)


def check_waveforms(samples: ArrayLike, *, what: str = "waveform") -> NDArray[np.float32] | NDArray[np.int16]:
    """`check_waveform` of every row of [N, n], in one pass over all rows; int16 is returned unchanged.

    Raises AudioError that names the first invalid row.
    """
    array = np.asarray(samples)
    if array.ndim != 2:
        raise AudioError(f"{what}: expected waveforms of equal length with shape [N, n], got {list(array.shape)}")
    if array.dtype == np.int16:
        return array
    # As in `check_waveform`: a small energy excludes peaks and NaN; otherwise minimum and maximum decide.
    if array.dtype == np.float32 and (
        float(np.einsum("ij,ij->i", array, array).max(initial=0)) <= MAX_PEAK**2
        or (array.min() >= -MAX_PEAK and array.max() <= MAX_PEAK)
    ):
        return array
    rows = [check_waveform(each, what=f"{what} {row}") for row, each in enumerate(array)]
    return np.stack(rows) if rows else np.zeros(array.shape, np.float32)


def as_floats(samples: NDArray[np.float32] | NDArray[np.int16]) -> NDArray[np.float32]:
    """Samples of any shape as float32 in [-1, 1]: int16 is divided by 32768."""
    if samples.dtype == np.int16:
        floats: NDArray[np.float32] = np.multiply(samples, np.float32(1 / 32768), dtype=np.float32)
        return floats
    return samples.astype(np.float32, copy=False)


def in_16_bits(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples of any shape rounded to int16; exact where they were 16-bit samples before."""
    scaled = samples * np.float32(32768)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32768, 32767, out=scaled)
    return scaled.astype(np.int16)


def _diagnose(array: NDArray[np.generic], peak: float, what: str) -> AudioError:
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        return AudioError(
            f"{what}: expected finite samples, got {array[bad[0]]} at sample {bad[0]} of {array.size}",
            hint="the program that made this audio divided by zero or overflowed",
        )
    return AudioError(
        f"{what}: expected floats in [-1, 1], got a peak of {peak:.6g}",
        hint="divide 16-bit samples by 32768",
    )
