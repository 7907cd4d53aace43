"""One channel made of several, such that no speech is cancelled.

The mean of channels is silent where one is the other inverted, which recorders with a balanced input make, and noisy
where one holds nothing but noise. Therefore channels are compared every two seconds, before they are mixed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moulin.audio.faults import Faults

MOST_MIXED = 64
"""Channels that are compared with each other, which takes time by their square."""

_WINDOW_SEC = 2.0
"""Audio that is compared at once, and held back so long."""

_FADE_SEC = 0.03
"""The time in which the weights of two windows change over: at once, it would click."""

_COMPARED_RATE = 8000
_FRAME_SAMPLES = 256
_PREEMPHASIS = 0.9

_TURN_BELOW, _TURN_BACK_ABOVE = -0.25, 0.05
"""The correlation with the strongest channel from which another one is inverted. Two people's speech has 0 +- 0.15."""

_LEAST_ENERGY = 0.25
"""A mix has at least this share of the strongest channel's energy: that of the mean of two of which one is silent."""

_STEADY, _LIVELY = 3.0, 10.0
"""The ratio of loud to quiet frames, in energy: noise has less than the first, speech more than the second."""

_LOUD = 0.003
"""Noise below this share of the speech's energy does no harm and is mixed as it is."""

_HISTORY_WINDOWS = 5
_SILENCE = 1e-9
"""Mean energy of samples, below which there is nothing to compare."""

_KEPT = 0.5
"""The share of earlier windows in a comparison, which halves with every window."""


class ChannelMixer:
    """Mixes the channels of one recording, in blocks of any length."""

    def __init__(self, channels: int, rate: int, faults: Faults) -> None:
        self._channels, self._faults = channels, faults
        self._window = round(_WINDOW_SEC * rate)
        self._fade = round(_FADE_SEC * rate)
        self._step = max(rate // _COMPARED_RATE, 1)
        self._samples = np.empty((channels, 0), np.float32)
        """Channel by channel; the first `_held` of each are held back. Kept: fresh memory costs more than a copy."""
        self._held = 0
        self._covariance = np.zeros((channels, channels))
        self._history: list[NDArray[np.float64]] = []
        self._signs = np.ones(channels)
        self._left_out = np.zeros(channels, bool)
        self._weights: NDArray[np.float64] | None = None

    def mixed(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mix [m] that is ready after `block` [n, channels]; m is 0 for most blocks."""
        end = self._held + len(block)
        if end > self._samples.shape[1]:
            samples = np.empty((self._channels, end + self._window), np.float32)
            samples[:, : self._held] = self._samples[:, : self._held]
            self._samples = samples
        self._samples[:, self._held : end] = block.T
        self._held = end
        return self._take() if self._held >= self._window else np.zeros(0, np.float32)

    def rest(self) -> NDArray[np.float32]:
        """The mix of what was held back."""
        return self._take() if self._held else np.zeros(0, np.float32)

    def _take(self) -> NDArray[np.float32]:
        window, self._held = self._samples[:, : self._held], 0
        with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses infinite and NaN samples
            before, self._weights = self._weights, self._compared(window)
            mix = _weighted(window, self._weights)
            if before is not None and not np.array_equal(before, self._weights):
                fade = min(self._fade, len(mix))
                share = np.linspace(0, 1, fade, dtype=np.float32)
                mix[:fade] = share * mix[:fade] + (1 - share) * _weighted(window[:, :fade], before)
        return mix

    def _compared(self, window: NDArray[np.float32]) -> NDArray[np.float64]:
        """The weights [channels] for a window [channels, n]."""
        if (window[1:] == window[0]).all():  # one microphone in all channels
            return np.full(self._channels, 1 / self._channels)
        end = window.shape[1] // self._step * self._step
        samples = window[:, 0 : end : self._step].copy()
        for begin in range(1, self._step):
            samples += window[:, begin : end : self._step]
        samples /= np.float32(self._step)
        rough = samples[:, 1:] - np.float32(_PREEMPHASIS) * samples[:, :-1]
        if rough.shape[1]:
            rough -= rough.mean(axis=1, keepdims=True)
        covariance = _products(rough) / max(rough.shape[1], 1)
        if not np.isfinite(covariance).all() or covariance.diagonal().max() < _SILENCE:
            return np.full(self._channels, 1 / self._channels) if self._weights is None else self._weights
        self._covariance = _KEPT * self._covariance + covariance
        self._find_noise(rough)
        self._find_signs()
        signs = np.where(self._left_out, 0.0, self._signs)
        mean = signs / np.count_nonzero(signs)
        energy, strongest = mean @ self._covariance @ mean, self._energies().max()
        weights: NDArray[np.float64] = mean * np.sqrt(
            max(_LEAST_ENERGY * strongest / max(energy, 1e-12 * strongest), 1.0)
        )
        return weights

    def _energies(self) -> NDArray[np.float64]:
        """The energy of each channel that is not left out."""
        return np.where(self._left_out, 0.0, self._covariance.diagonal())

    def _find_noise(self, rough: NDArray[np.float32]) -> None:
        """Leave out channels of loud steady noise where another one has speech."""
        whole = rough.shape[1] // _FRAME_SAMPLES * _FRAME_SAMPLES
        frames = rough[:, :whole].reshape(self._channels, -1, _FRAME_SAMPLES)
        of_frames = np.einsum("cfs,cfs->fc", frames, frames).astype(np.float64)
        self._history = [*self._history, of_frames][-_HISTORY_WINDOWS:]
        energies = np.concatenate(self._history)
        if len(energies) < 10:
            return
        loud, quiet = np.quantile(energies, 0.9, axis=0), np.quantile(energies, 0.1, axis=0)
        lively = loud > _LIVELY * np.maximum(quiet, 1e-3 * loud)
        noisy = loud < _STEADY * quiet
        noisy &= bool(lively.any()) & (loud > _LOUD * np.where(lively, loud, 0.0).max())
        self._left_out = (noisy | (self._left_out & ~lively)) if lively.any() else self._left_out
        for channel in np.flatnonzero(self._left_out):
            self._faults.add(f"channel {channel + 1} of {self._channels} holds steady noise and was left out")

    def _find_signs(self) -> None:
        energies = self._energies()
        strongest = int(energies.argmax())
        scale = np.sqrt(energies[strongest] * np.maximum(energies, 1e-12 * energies[strongest]))
        correlation = self._covariance[strongest] / scale * self._signs[strongest]
        self._signs = np.where(
            correlation < _TURN_BELOW, -1.0, np.where(correlation > _TURN_BACK_ABOVE, 1.0, self._signs)
        )
        heard = self._signs[energies > 0]
        if heard.sum() < 0 or (heard.sum() == 0 and heard[0] < 0):  # the few are turned, of two the second one
            self._signs = -self._signs
        for channel in np.flatnonzero((self._signs < 0) & (energies > 0)):
            self._faults.add(
                f"channel {channel + 1} of {self._channels} is inverted and was turned before the channels were mixed"
            )


# Sums channel by channel, not as products of matrices, for which BLAS would wake threads that cost more CPU time than
# all of the decoding; and of contiguous channels, in half the time of interleaved ones.


def _products(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The products of channels [channels, channels] of samples [channels, n]."""
    channels = len(samples)
    products = np.zeros((channels, channels))
    for one in range(channels):
        for other in range(one, channels):
            products[one, other] = products[other, one] = np.einsum("n,n->", samples[one], samples[other])
    return products


def _weighted(samples: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """samples [channels, n] times weights [channels]."""
    mix: NDArray[np.float32] = samples[0] * np.float32(weights[0])
    for channel, weight in zip(samples[1:], weights[1:], strict=True):
        mix += channel * np.float32(weight)
    return mix
