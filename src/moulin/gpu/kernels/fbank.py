"""Kaldi fbank of a batch of waveforms of any lengths: windowed frames, their spectrum by cuFFT, mel filters.

Computed in float32 throughout and in Kaldi's order, so that features differ from kaldi-native-fbank's by rounding only.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from moulin.audio.batched_fbank import EPSILON, PREEMPHASIS, mel_filters, povey_window
from moulin.audio.fbank import FbankOptions

_BLOCK_F = 8  # frames windowed by one program
_BLOCK_M = 32  # frames filtered by one program


class FbankMatrices:
    """Window and mel filters of `options` on a device, padded to powers of two."""

    def __init__(self, options: FbankOptions, device: torch.device) -> None:
        self.length, self.shift = options.frame_length_samples, options.frame_shift_samples
        self.bins, self.fft_size = options.num_mel_bins, triton.next_power_of_2(options.frame_length_samples)
        window = torch.from_numpy(povey_window(self.length)).float()
        self.window = functional.pad(window, (0, self.fft_size - self.length)).to(device)
        filters = torch.from_numpy(mel_filters(options, self.fft_size)).float()  # [fft_size / 2, bins]
        self.filters = functional.pad(filters, (0, triton.next_power_of_2(self.bins) - self.bins)).contiguous()
        self.filters = self.filters.to(device)

    def num_frames(self, num_samples: int) -> int:
        """Frames of `num_samples` samples, which include the tail of silence."""
        return (num_samples + self.shift // 2) // self.shift


def fbank_plain(
    samples: Tensor, starts: Tensor, lengths: Tensor, tail: int, max_frames: int, matrices: FbankMatrices
) -> Tensor:
    """The plain twin of `fbank`, utterance by utterance in double precision; frames beyond an utterance are zeros."""
    out = torch.zeros(len(starts), max_frames, matrices.bins, device=samples.device)
    scale = 1.0 / 32768 if samples.dtype == torch.int16 else 1.0
    for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        waveform = functional.pad(samples[start : start + length].double() * scale, (0, tail))
        whole = len(waveform)
        frames = matrices.num_frames(whole)
        at = torch.arange(frames, device=samples.device)[:, None] * matrices.shift
        at = at + matrices.shift // 2 - matrices.length // 2 + torch.arange(matrices.length, device=samples.device)
        at = torch.where(at < 0, -1 - at, torch.where(at >= whole, 2 * whole - 1 - at, at))
        x = waveform[at]
        x = x - x.mean(dim=1, keepdim=True)
        x = x - PREEMPHASIS * torch.cat([x[:, :1], x[:, :-1]], dim=1)
        power = torch.fft.rfft(x * matrices.window[: matrices.length], n=matrices.fft_size).abs().square()
        energies = power[:, :-1] @ matrices.filters[:, : matrices.bins].double()
        out[row, :frames] = energies.clamp(min=EPSILON).log().float()
    return out


def fbank(
    samples: Tensor,
    starts: Tensor,
    lengths: Tensor,
    tail: int,
    max_frames: int,
    matrices: FbankMatrices,
    out: Tensor | None = None,
    peaks: Tensor | None = None,
) -> Tensor:
    """Features float32 [B, max_frames, bins] of utterances in `samples`, int16 or float32 in [-1, 1].

    `peaks`, float32 zeros [B], become each utterance's largest absolute sample, or NaN where a sample is NaN, so that
    the host can refuse an utterance without reading it.

    Utterance b consists of `lengths[b]` samples from `starts[b]` (int64 [B]) on, followed by `tail` zeros; together at
    least one frame long. Frames beyond an utterance are undefined.
    """
    batch, fft_size = len(starts), matrices.fft_size
    if out is None:
        out = torch.empty(batch, max_frames, matrices.bins, device=samples.device)
    windowed = torch.empty(batch, max_frames, fft_size, device=samples.device)
    _windowed_kernel[(triton.cdiv(max_frames, _BLOCK_F), batch)](
        samples,
        starts,
        lengths,
        matrices.window,
        windowed,
        None if peaks is None else peaks.view(torch.int32),
        tail,
        max_frames,
        1.0 / 32768 if samples.dtype == torch.int16 else 1.0,
        PREEMPHASIS,
        matrices.length,
        matrices.shift,
        fft_size,
        _BLOCK_F,
    )
    return filtered(windowed, matrices, out)


def filtered(windowed: Tensor, matrices: FbankMatrices, out: Tensor) -> Tensor:
    """Log mel energies of windowed frames float32 [B, T, fft_size], into `out` [B, T, bins]."""
    spectrum = torch.view_as_real(torch.fft.rfft(windowed))
    rows = windowed.shape[0] * windowed.shape[1]
    _filter_kernel[(triton.cdiv(rows, _BLOCK_M),)](
        spectrum,
        matrices.filters,
        out,
        rows,
        matrices.bins,
        EPSILON,
        matrices.fft_size // 2,
        matrices.filters.shape[1],
        _BLOCK_M,
        32,
    )
    return out


@triton.jit(do_not_specialize=["tail", "max_frames", "scale", "preemphasis"])
def _windowed_kernel(
    samples,
    starts,
    lengths,
    window,
    out,
    peaks,
    tail,
    max_frames,
    scale,
    preemphasis,
    LENGTH: tl.constexpr,
    SHIFT: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    row = tl.program_id(1)
    length = tl.load(lengths + row)
    whole = length + tail
    frame = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    samples += tl.load(starts + row)
    n = tl.arange(0, SIZE)
    first = frame * SHIFT + (SHIFT // 2 - LENGTH // 2)
    exists = (frame < (whole + SHIFT // 2) // SHIFT)[:, None] & (n < LENGTH)[None, :]
    x = _sample(samples, first[:, None] + n[None, :], length, whole, exists) * scale
    before = _sample(samples, first[:, None] + tl.maximum(n - 1, 0)[None, :], length, whole, exists) * scale
    if peaks is not None:
        # Without sign, floats compare like their bits as integers, with infinity above all numbers and NaN above it.
        magnitudes = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        tl.atomic_max(peaks + row, tl.max(tl.max(magnitudes, axis=1), axis=0))
    y = shaped(x, before, exists, window + n, preemphasis, LENGTH)
    at = out + (row.to(tl.int64) * max_frames + frame[:, None]) * SIZE + n[None, :]
    tl.store(at, y, mask=(frame < max_frames)[:, None])


@triton.jit
def shaped(x, before, exists, window, preemphasis, LENGTH: tl.constexpr):
    """Frames [F, N] of samples, of which the first LENGTH exist, with the mean subtracted, pre-emphasised and windowed.
    `before` has the sample before each; `window` [N] are addresses."""
    mean = tl.sum(x, axis=1) / LENGTH
    y = (x - mean[:, None]) - preemphasis * (before - mean[:, None])
    return tl.where(exists, y * tl.load(window)[None, :], 0.0)


@triton.jit
def _sample(samples, at, length, whole, exists):
    """The samples at `at`, mirrored beyond an utterance's ends, float32."""
    at = tl.where(at < 0, -1 - at, tl.where(at >= whole, 2 * whole - 1 - at, at))
    return tl.load(samples + at, mask=exists & (at >= 0) & (at < length), other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["rows", "epsilon"])
def _filter_kernel(
    spectrum,
    filters,
    out,
    rows,
    bins,
    epsilon,
    FREQUENCIES: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    m = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    b = tl.arange(0, BINS)
    inside = (m < rows)[:, None]
    energies = tl.zeros((BLOCK_M, BINS), dtype=tl.float32)
    for k0 in range(0, FREQUENCIES, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        at = spectrum + (m[:, None] * (FREQUENCIES + 1) + k[None, :]) * 2
        re, im = tl.load(at, mask=inside, other=0.0), tl.load(at + 1, mask=inside, other=0.0)
        weights = tl.load(filters + k[:, None] * BINS + b[None, :])
        # Three passes of TF32, as accurate as float32.
        energies = tl.dot(re * re + im * im, weights, energies, input_precision="tf32x3")
    features = tl.log(tl.maximum(energies, epsilon, propagate_nan=tl.PropagateNan.ALL))  # NaN is no silence
    tl.store(out + m[:, None] * bins + b[None, :], features, mask=inside & (b < bins)[None, :])
