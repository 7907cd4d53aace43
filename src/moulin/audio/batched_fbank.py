"""Fbank of frames from any number of streams or recordings at once, as two matrix products.

The operations on a frame's samples before the power spectrum (DC removal, pre-emphasis, window, Fourier transform) are
linear, so one matrix multiplication does them all; the mel filters are a second:

    fbank = log(max((frames @ spectrum)^2 @ mel, epsilon))

This is more arithmetic than a fast Fourier transform, but one call for a whole batch, without the interpreter lock and
on any device: a third of kaldi-native-fbank's time on a CPU core. On speech the features are within 0.01 of those in
double precision (kaldi-native-fbank: 0.002); the largest errors are in filters with almost no energy.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from moulin.arrays import Doubles, Floats
from moulin.audio.fbank import FbankOptions
from moulin.errors import OptionsError

EPSILON = float(np.finfo(np.float32).eps)
"""Kaldi's floor of a mel filter's energy."""

PREEMPHASIS = 0.97
_POVEY_EXPONENT = 0.85


class BatchedFbank:
    """The two matrices for `options`, and features computed with them in numpy.

    `spectrum` is float32 [L, 2 K], the real and imaginary parts of the K frequencies that any filter passes, and `mel`
    float32 [2 K, num_mel_bins]. Raises OptionsError where a filter is so narrow that it passes no frequency.
    """

    def __init__(self, options: FbankOptions) -> None:
        length = options.frame_length_samples
        fft_size = 1 << (length - 1).bit_length()
        filters = mel_filters(options, fft_size)
        if not filters.any(axis=0).all():
            raise OptionsError(f"{options} has a mel filter that passes no frequency", hint="choose fewer num_mel_bins")
        (passed,) = np.nonzero(filters.any(axis=1))
        fourier = np.exp(-2j * np.pi * np.outer(passed, np.arange(length)) / fft_size)
        spectrum = (fourier * povey_window(length) @ _preemphasis(length) @ _dc_removal(length)).T
        self.spectrum: Floats = np.concatenate([spectrum.real, spectrum.imag], axis=1).astype(np.float32)
        self.mel: Floats = np.concatenate([filters[passed]] * 2).astype(np.float32)

    def __call__(self, frames: Floats) -> Floats:
        """Features of frames float32 [N, L], samples in [-1, 1]: float32 [N, num_mel_bins]."""
        energies: Floats = np.square(frames @ self.spectrum) @ self.mel
        features: Floats = np.log(np.maximum(energies, np.float32(EPSILON)))
        return features


def frames_of(samples: Floats, options: FbankOptions) -> Floats:
    """The frames of whole audio [N], as `Fbank` cuts them: float32 [(N + 80) // 160, 400] with Icefall's options, a
    view of a copy of the samples. Kaldi mirrors the audio for frames that extend beyond an end."""
    length, shift = options.frame_length_samples, options.frame_shift_samples
    count = (len(samples) + shift // 2) // shift
    if not count:
        return np.zeros((0, length), np.float32)
    before = (length - shift) // 2
    behind = max(0, (count - 1) * shift + length - before - len(samples))
    mirrored = np.pad(samples, (before, behind), mode="symmetric")
    frames: Floats = sliding_window_view(mirrored, length)[::shift][:count]
    return frames


def povey_window(length: int) -> Doubles:
    """A Hann window to the power of 0.85."""
    window: Doubles = np.power(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1)), _POVEY_EXPONENT)
    return window


def _preemphasis(length: int) -> Doubles:
    """The matrix that subtracts from every sample 0.97 of the previous sample; from the first, 0.97 of itself."""
    matrix: Doubles = np.eye(length) - PREEMPHASIS * np.eye(length, k=-1)
    matrix[0, 0] -= PREEMPHASIS
    return matrix


def _dc_removal(length: int) -> Doubles:
    matrix: Doubles = np.eye(length) - 1 / length
    return matrix


def mel_filters(options: FbankOptions, fft_size: int) -> Doubles:
    """Triangular filters between points equally spaced on Kaldi's mel scale: [fft_size / 2, num_mel_bins].

    Kaldi omits the last frequency of the spectrum, the Nyquist frequency.
    """
    first, last = _mel(np.array([options.low_freq, options.top_freq]))
    points = np.linspace(first, last, options.num_mel_bins + 2)
    frequencies = _mel(np.arange(fft_size // 2) * options.sample_rate / fft_size)[:, None]
    rising = (frequencies - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - frequencies) / (points[2:] - points[1:-1])
    filters: Doubles = np.maximum(0, np.minimum(rising, falling))
    return filters


def _mel(hertz: Doubles) -> Doubles:
    mel: Doubles = 1127 * np.log(1 + hertz / 700)
    return mel
