"""Kaldi fbank of a batch of waveforms of any lengths, from samples to features in one kernel.

The Fourier transform of a frame is a product with a matrix, as in `moulin.audio.batched_fbank`, on tensor cores in
three passes of TF32, which is as exact as float32. A frame's samples are read where they are: no framing in memory.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from moulin.audio.batched_fbank import EPSILON, BatchedFbank
from moulin.audio.fbank import FbankOptions

_BLOCK = 32  # of frames and of frequencies: more, and tensor cores' operands do not fit into registers


class FbankMatrices:
    """The matrices of `options` on a device, padded to what the kernel multiplies."""

    def __init__(self, options: FbankOptions, device: torch.device) -> None:
        plain = BatchedFbank(options)
        self.options = options
        self.length, self.shift = options.frame_length_samples, options.frame_shift_samples
        self.bins = options.num_mel_bins
        frequencies = plain.spectrum.shape[1] // 2
        missing = -frequencies % _BLOCK
        real, imaginary = np.split(plain.spectrum, 2, axis=1)
        self.real = functional.pad(torch.from_numpy(real), (0, missing)).contiguous().to(device)
        self.imaginary = functional.pad(torch.from_numpy(imaginary), (0, missing)).contiguous().to(device)
        mel = torch.from_numpy(plain.mel[:frequencies])
        self.mel = functional.pad(mel, (0, triton.next_power_of_2(self.bins) - self.bins, 0, missing)).to(device)
        self.mel = self.mel.contiguous()
        self.plain = plain

    def num_frames(self, num_samples: int) -> int:
        """How many frames `num_samples` samples give, the tail of silence included."""
        return (num_samples + self.shift // 2) // self.shift


def fbank_plain(
    samples: Tensor, starts: Tensor, lengths: Tensor, tail: int, max_frames: int, matrices: FbankMatrices
) -> Tensor:
    """What `fbank` computes, utterance by utterance; frames beyond an utterance are zeros."""
    out = torch.zeros(len(starts), max_frames, matrices.bins, device=samples.device)
    scale = 1.0 / 32768 if samples.dtype == torch.int16 else 1.0
    for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        waveform = functional.pad(samples[start : start + length].float() * scale, (0, tail)).cpu().numpy()
        frames = matrices.num_frames(len(waveform))
        first = matrices.shift // 2 - matrices.length // 2
        at = np.arange(frames)[:, None] * matrices.shift + first + np.arange(matrices.length)
        at = np.where(at < 0, -1 - at, np.where(at >= len(waveform), 2 * len(waveform) - 1 - at, at))
        out[row, :frames] = torch.from_numpy(matrices.plain(waveform[at])).to(out.device)
    return out


def fbank(
    samples: Tensor,
    starts: Tensor,
    lengths: Tensor,
    tail: int,
    max_frames: int,
    matrices: FbankMatrices,
    out: Tensor | None = None,
) -> Tensor:
    """Features float32 [B, max_frames, bins] of utterances in `samples`, int16 or float32 in [-1, 1].

    Utterance b is `lengths[b]` samples from `starts[b]` (int64 [B]) on, and `tail` zeros behind them. Frames beyond an
    utterance's are not written. An utterance with its tail has at least a frame's samples.
    """
    if out is None:
        out = torch.empty(len(starts), max_frames, matrices.bins, device=samples.device)
    _fbank_kernel[(triton.cdiv(max_frames, _BLOCK), len(starts))](
        samples,
        starts,
        lengths,
        matrices.real,
        matrices.imaginary,
        matrices.mel,
        out,
        tail,
        max_frames,
        matrices.bins,
        1.0 / 32768 if samples.dtype == torch.int16 else 1.0,
        EPSILON,
        matrices.length,
        matrices.shift,
        matrices.real.shape[1],
        _BLOCK,
        16,
        _BLOCK,
        matrices.mel.shape[1],
        num_warps=4,
        num_stages=3,
    )
    return out


@triton.jit(do_not_specialize=["tail", "max_frames", "scale", "epsilon"])
def _fbank_kernel(
    samples,
    starts,
    lengths,
    real,
    imaginary,
    mel,
    out,
    tail,
    max_frames,
    bins,
    scale,
    epsilon,
    LENGTH: tl.constexpr,
    SHIFT: tl.constexpr,
    FREQUENCIES: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BINS: tl.constexpr,
):
    row = tl.program_id(1)
    length = tl.load(lengths + row)
    whole = length + tail
    frames = (whole + SHIFT // 2) // SHIFT
    frame = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    if tl.program_id(0) * BLOCK_F < frames:
        samples += tl.load(starts + row)
        b = tl.arange(0, BINS)
        first = frame * SHIFT + (SHIFT // 2 - LENGTH // 2)
        energies = tl.zeros((BLOCK_F, BINS), dtype=tl.float32)
        for k0 in range(0, FREQUENCIES, BLOCK_K):
            k = k0 + tl.arange(0, BLOCK_K)
            re = tl.zeros((BLOCK_F, BLOCK_K), dtype=tl.float32)
            im = tl.zeros((BLOCK_F, BLOCK_K), dtype=tl.float32)
            for l0 in range(0, LENGTH, BLOCK_L):
                n = l0 + tl.arange(0, BLOCK_L)
                inside = n < LENGTH
                at = first[:, None] + n[None, :]
                # Beyond its ends an utterance is mirrored.
                at = tl.where(at < 0, -1 - at, tl.where(at >= whole, 2 * whole - 1 - at, at))
                heard = (at >= 0) & (at < length) & inside[None, :]
                x = tl.load(samples + at, mask=heard, other=0.0).to(tl.float32) * scale
                weight = n[:, None] * FREQUENCIES + k[None, :]
                a = tl.load(real + weight, mask=inside[:, None], other=0.0)
                re = tl.dot(x, a, re, input_precision="tf32x3")
                a = tl.load(imaginary + weight, mask=inside[:, None], other=0.0)
                im = tl.dot(x, a, im, input_precision="tf32x3")
            power = re * re + im * im
            filters = tl.load(mel + k[:, None] * BINS + b[None, :])
            energies = tl.dot(power, filters, energies, input_precision="tf32x3")
        features = tl.log(tl.maximum(energies, epsilon))
        at = out + (row.to(tl.int64) * max_frames + frame[:, None]) * bins + b[None, :]
        tl.store(at, features, mask=(frame < tl.minimum(frames, max_frames))[:, None] & (b < bins)[None, :])
