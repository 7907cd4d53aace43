"""Features of streams' chunks, from audio that lies in pinned memory of the host, a ring of samples a stream.

A kernel that knows the streams of a step reads their audio where it lies, so that nothing is gathered on the host. A
window is read as a whole, with the samples that the window before had too, so that no state is kept between windows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.audio.batched_fbank import EPSILON, PREEMPHASIS
from moulin.gpu.kernels.fbank import FbankMatrices, filtered, shaped
from moulin.streaming.window_layout import WindowLayout

_BLOCK_N = 1024  # samples that one program fetches
_BLOCK_F = 8  # frames that one program cuts out


def stream_fbank_plain(
    inbox: Tensor, slots: Tensor, numbers: Tensor, heard: Tensor, layout: WindowLayout, matrices: FbankMatrices
) -> Tensor:
    """The plain twin of `stream_fbank`, window by window in double precision."""
    out = torch.zeros(len(slots), layout.window_frames, matrices.bins, device=slots.device)
    n = torch.arange(layout.samples)
    for row, (slot, number, length) in enumerate(zip(slots.tolist(), numbers.tolist(), heard.tolist(), strict=True)):
        at = number * layout.chunk - layout.overhang + n
        at = torch.where(at < 0, -1 - at, at)
        samples = inbox[slot, at % inbox.shape[1]].double()
        samples = torch.where(at < number * layout.chunk - layout.overhang + length, samples, 0.0)
        x = samples.unfold(0, layout.frame_length, layout.frame_shift)
        x = x - x.mean(dim=1, keepdim=True)
        x = x - PREEMPHASIS * torch.cat([x[:, :1], x[:, :-1]], dim=1)
        x = x.to(slots.device) * matrices.window[: matrices.length]
        power = torch.fft.rfft(x, n=matrices.fft_size).abs().square()
        energies = power[:, :-1] @ matrices.filters[:, : matrices.bins].double()
        out[row] = energies.clamp(min=EPSILON).log().float()
    return out


def stream_fbank(
    inbox: Tensor,
    slots: Tensor,
    numbers: Tensor,
    heard: Tensor,
    layout: WindowLayout,
    matrices: FbankMatrices,
) -> Tensor:
    """Windows float32 [B, window_frames, bins] of the streams in `slots` int32 [B], for each the one with its number in
    `numbers` int32 [B].

    Sample i of a stream is at i modulo the length of its ring in `inbox`, float32 [slots, ring], pinned; rings hold a
    number of chunks. Kaldi sees what is before the first sample mirrored. `heard` int32 [B] are the samples of the
    window, counted from its beginning (before the first sample, for window 0), beyond which there is silence, whatever
    the ring holds.
    """
    batch, ring = len(slots), inbox.shape[1]
    padded = triton.cdiv(layout.samples, _BLOCK_N) * _BLOCK_N
    audio = torch.empty(batch, padded, device=slots.device)
    _fetch_kernel[(padded // _BLOCK_N, batch)](
        inbox, slots, numbers, heard, audio, padded, layout.chunk, layout.overhang, ring, _BLOCK_N
    )
    windowed = torch.empty(batch, layout.window_frames, matrices.fft_size, device=slots.device)
    _windowed_kernel[(triton.cdiv(layout.window_frames, _BLOCK_F), batch)](
        audio,
        matrices.window,
        windowed,
        padded,
        PREEMPHASIS,
        layout.window_frames,
        matrices.length,
        matrices.shift,
        matrices.fft_size,
        _BLOCK_F,
    )
    return filtered(windowed, matrices, torch.empty(batch, layout.window_frames, matrices.bins, device=slots.device))


@triton.jit
def _fetch_kernel(
    inbox,
    slots,
    numbers,
    heard,
    audio,
    padded,
    CHUNK: tl.constexpr,
    OVERHANG: tl.constexpr,
    RING: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Copy samples from the host; each crosses the bus once, and as many at a time as possible."""
    row = tl.program_id(1).to(tl.int64)
    number = tl.load(numbers + row)
    length = tl.load(heard + row)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    n = tl.where((number == 0) & (n < OVERHANG), 2 * OVERHANG - 1 - n, n)
    at = (number % (RING // CHUNK) * CHUNK - OVERHANG + n + RING) % RING
    samples = inbox + tl.load(slots + row).to(tl.int64) * RING + at
    x = tl.load(samples, mask=n < length, other=0.0, cache_modifier=".cg")
    tl.store(audio + row * padded + tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), x)


@triton.jit(do_not_specialize=["preemphasis"])
def _windowed_kernel(
    audio,
    window,
    out,
    padded,
    preemphasis,
    FRAMES: tl.constexpr,
    LENGTH: tl.constexpr,
    SHIFT: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    frame = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    n = tl.arange(0, SIZE)
    exists = (frame < FRAMES)[:, None] & (n < LENGTH)[None, :]
    first = audio + row * padded + frame * SHIFT
    x = tl.load(first[:, None] + n[None, :], mask=exists, other=0.0)
    before = tl.load(first[:, None] + tl.maximum(n - 1, 0)[None, :], mask=exists, other=0.0)
    y = shaped(x, before, exists, window + n, preemphasis, LENGTH)
    tl.store(out + (row * FRAMES + frame[:, None]) * SIZE + n[None, :], y, mask=(frame < FRAMES)[:, None])
