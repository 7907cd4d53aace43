"""What moulin calls a waveform: float32 samples [N] of one channel in [-1, 1], 16,000 a second."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moulin.errors import AudioError

SAMPLE_RATE = 16000

# Lossy codecs and resampling overshoot 1 a little and float recordings may be hot, but nothing that is really
# in [-1, 1] gets near 16 (+24 dB), while 16-bit speech that somebody forgot to scale always does.
MAX_PEAK = 16.0

# A chunk of live speech; of more the BLAS library would make threads.
_MAX_DOT = 8192


def check_waveform(samples: ArrayLike, *, what: str = "waveform") -> NDArray[np.float32]:
    """Return `samples` as a contiguous float32 array [N], without a copy where it already is one.

    Floats of any width are taken as they are; int16 is divided by 32768. N may be 0. `what` names the audio in
    the error message. Costs two passes over the samples, minimum and maximum, or one over few and quiet ones.

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
    # One pass where it will do: with so little energy no sample is above the peak, and none is NaN.
    if array.size <= _MAX_DOT and array.dtype == np.float32:
        with np.errstate(over="ignore", invalid="ignore"):  # numpy 2.5 warns of what the comparison finds
            energy = float(np.dot(array, array))
        if energy <= MAX_PEAK**2:
            return np.ascontiguousarray(array)
    low, high = float(array.min()), float(array.max())  # NaN passes through both and fails the comparison
    if not max(-low, high) <= MAX_PEAK:
        raise _diagnose(array, max(-low, high), what)
    return np.ascontiguousarray(array, dtype=np.float32)


def check_waveforms(samples: ArrayLike, *, what: str = "waveform") -> NDArray[np.float32] | NDArray[np.int16]:
    """`check_waveform` of every row of [N, n], in one pass over all. int16 stays what it is.

    Raises AudioError, which names the first row that is no audio.
    """
    array = np.asarray(samples)
    if array.ndim != 2:
        raise AudioError(f"{what}: expected waveforms of equal length with shape [N, n], got {list(array.shape)}")
    if array.dtype == np.int16:
        return array
    # As above: with so little energy no sample is above the peak; else two passes tell.
    if array.dtype == np.float32 and (
        float(np.einsum("ij,ij->i", array, array).max(initial=0)) <= MAX_PEAK**2
        or (array.min() >= -MAX_PEAK and array.max() <= MAX_PEAK)
    ):
        return array
    rows = [check_waveform(each, what=f"{what} {row}") for row, each in enumerate(array)]
    return np.stack(rows) if rows else np.zeros(array.shape, np.float32)


def as_floats(samples: NDArray[np.float32] | NDArray[np.int16]) -> NDArray[np.float32]:
    """Samples of any shape in [-1, 1]: int16 is divided by 32768."""
    if samples.dtype == np.int16:
        floats: NDArray[np.float32] = np.multiply(samples, np.float32(1 / 32768), dtype=np.float32)
        return floats
    return samples.astype(np.float32, copy=False)


def in_16_bits(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """The nearest int16 of samples of any shape: exactly what they were where they came from 16 bits."""
    rounded: NDArray[np.int16] = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    return rounded


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
