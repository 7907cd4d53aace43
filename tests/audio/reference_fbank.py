"""Kaldi's fbank written out in numpy from its definition (feat/feature-window.cc, mel-computations.cc), in float64.

Slow and plain: what the tests compare kaldi-native-fbank with. The two arguments are the settings that sherpa's
Triton recipes get wrong, so that tests can show that the difference would be noticed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE, WINDOW, SHIFT, FFT, BINS, LOW_HZ = 16000, 400, 160, 512, 80, 20.0


def reference_fbank(
    samples: NDArray[np.float32], *, high_hz: float = 7600.0, snip_edges: bool = False
) -> NDArray[np.float64]:
    """Log-mel energies float64 [T, 80] of samples [N] in [-1, 1] at 16 kHz."""
    frames = cut_frames(samples.astype(np.float64), snip_edges)
    frames = frames - frames.mean(axis=1, keepdims=True)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - 0.97 * previous) * povey_window()
    power = np.abs(np.fft.rfft(frames, FFT, axis=1)) ** 2
    energies = np.maximum(power @ mel_filters(high_hz).T, np.finfo(np.float32).eps)
    features: NDArray[np.float64] = np.log(energies)
    return features


def cut_frames(samples: NDArray[np.float64], snip_edges: bool) -> NDArray[np.float64]:
    """Frames [T, 400]. Without snip_edges they are centred on 80, 240, ... and the ends are mirrored."""
    if snip_edges:
        count, first = max(0, 1 + (len(samples) - WINDOW) // SHIFT), 0
    else:
        count, first = (len(samples) + SHIFT // 2) // SHIFT, SHIFT // 2 - WINDOW // 2
    starts = first + SHIFT * np.arange(count)
    indices = starts[:, None] + np.arange(WINDOW)
    if len(samples):  # ... 2 1 0 | 0 1 2 ... N-1 | N-1 N-2 ...: a pattern of period 2N
        indices = indices % (2 * len(samples))
        indices = np.minimum(indices, 2 * len(samples) - 1 - indices)
    frames: NDArray[np.float64] = samples[indices]
    return frames


def povey_window() -> NDArray[np.float64]:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))
    window: NDArray[np.float64] = hann**0.85
    return window


def mel_filters(high_hz: float) -> NDArray[np.float64]:
    """Triangles [80, 257], equally spaced and straight-sided on the mel scale; the Nyquist bin is not used."""

    def mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
        mels: NDArray[np.float64] = 1127.0 * np.log1p(np.asarray(hz) / 700.0)
        return mels

    corners = np.linspace(mel(LOW_HZ), mel(high_hz), BINS + 2)
    left, centre, right = (corners[i : i + BINS, None] for i in range(3))
    bins = mel(np.arange(FFT // 2 + 1) * RATE / FFT)
    filters = np.maximum(0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    filters[:, -1] = 0
    return filters
