"""Convolutions of streams in chunks. The past frames that they need lie on the card (see `stream_attention`)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from moulin.gpu.kernels.activations import Activation, activate, plain_activation
from moulin.gpu.kernels.depthwise import Depthwise
from moulin.gpu.kernels.stream_attention import Chunks


def ring_depthwise(projected: Tensor, at: Chunks, ring: Tensor, conv: Depthwise, activation: Activation) -> Tensor:
    """`activation` of the chunk-wise causal convolution (`moulin.encoders.zipformer2.ChunkCausalConv1d`) of gated
    values: `projected` [B chunk, 2 D] holds values and gates; [B chunk, D]. `ring` [slots, past + chunk, D] takes the
    gated values."""
    rows, dim = projected.shape[0], projected.shape[1] // 2
    chunk = rows // len(at.slots)
    out = torch.empty(rows, dim, dtype=projected.dtype, device=projected.device)
    block_d = min(64, triton.next_power_of_2(dim))
    _ring_depthwise_kernel[(len(at.slots), triton.cdiv(dim, block_d))](
        projected,
        at.slots,
        at.numbers,
        ring,
        conv.weight,
        conv.bias,
        conv.causal_weight,
        conv.causal_bias,
        conv.edges,
        out,
        projected.stride(0),
        dim,
        chunk,
        ring.shape[1],
        conv.weight.shape[0],
        activation,
        triton.next_power_of_2(chunk),
        block_d,
        num_warps=4,
    )
    return out


def ring_causal_depthwise_plain(
    projected: Tensor, at: Chunks, ring: Tensor, conv: Depthwise, activation: Activation, *, chunk: int
) -> Tensor:
    """The plain twin of `ring_causal_depthwise`, window by window."""
    batch, (kernel, dim) = len(at.slots), conv.weight.shape
    out = torch.empty(len(projected), dim, dtype=projected.dtype, device=projected.device)
    frames = len(projected) // batch
    for row, (slot, number) in enumerate(zip(at.slots.tolist(), at.numbers.tolist(), strict=True)):
        gated = functional.glu(projected[row * frames : (row + 1) * frames].float(), dim=1)
        begin = number * chunk
        ring[slot, torch.arange(begin, begin + frames, device=ring.device) % ring.shape[1]] = gated.to(ring.dtype)
        seen = torch.arange(begin - kernel + 1, begin + frames, device=ring.device)
        heard = torch.where((seen >= 0)[:, None], ring[slot, seen % ring.shape[1]].float(), 0.0)
        y = functional.conv1d(heard.t()[None], conv.weight.float().t()[:, None], conv.bias.float(), groups=dim)
        out[row * frames : (row + 1) * frames] = plain_activation(y[0].t(), activation).to(out.dtype)
    return out


def ring_causal_depthwise(
    projected: Tensor, at: Chunks, ring: Tensor, conv: Depthwise, activation: Activation, *, chunk: int
) -> Tensor:
    """`activation` of the causal convolution of gated values, whose last tap is the frame itself: [B T, D].

    `projected` [B T, 2 D] holds values and gates of windows of T frames, each `chunk` frames after the one before.
    `ring` [slots, kernel - 1 + T, D] takes the gated values; those of frames beyond the chunk are replaced by the next
    window.
    """
    rows, dim = projected.shape[0], projected.shape[1] // 2
    frames = rows // len(at.slots)
    out = torch.empty(rows, dim, dtype=projected.dtype, device=projected.device)
    block_t = triton.next_power_of_2(frames)
    block_d = min(max(16, 4096 // block_t), 64, triton.next_power_of_2(dim))
    _ring_causal_kernel[(len(at.slots), triton.cdiv(dim, block_d))](
        projected,
        at.slots,
        at.numbers,
        ring,
        conv.weight,
        conv.bias,
        out,
        projected.stride(0),
        dim,
        frames,
        chunk,
        conv.weight.shape[0],
        activation,
        block_t,
        block_d,
        num_warps=4,
    )
    return out


def with_past(x: Tensor, at: Chunks, past: Tensor, chunk: int) -> Tensor:
    """x [B, T, ...] behind the frames in `past` [slots, P, ...]: [B, P + T, ...]. The last P of the first `chunk`
    frames of x become the past; before a stream's first chunk that is zeros."""
    batch, frames, width = x.shape[0], x.shape[1], x[0, 0].numel()
    kept = past.shape[1]
    out = torch.empty(batch, kept + frames, *x.shape[2:], dtype=x.dtype, device=x.device)
    block = 1024
    _with_past_kernel[(batch, triton.cdiv(width, block))](
        x, at.slots, at.numbers, past, out, frames, width, kept, chunk, block, num_warps=4
    )
    return out


@triton.jit
def _put_gated(
    projected, ring, start, row, t, d, stride, dim, FRAMES: tl.constexpr, RING: tl.constexpr
):  # fmt: skip
    """Put the gated values of a window's FRAMES into the stream's `ring`, in which it begins at `start`."""
    inside = (t < FRAMES)[:, None] & (d < dim)[None, :]
    at = projected + (row * FRAMES + t[:, None]) * stride + d[None, :]
    value = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    value *= tl.sigmoid(tl.load(at + dim, mask=inside, other=0.0).to(tl.float32))
    tl.store(ring + ((start + t) % RING)[:, None] * dim + d[None, :], value.to(ring.dtype.element_ty), mask=inside)
    tl.debug_barrier()


@triton.jit
def _ring_causal_kernel(
    projected,
    slots,
    numbers,
    ring,
    weight,
    bias,
    out,
    stride,
    dim,
    FRAMES: tl.constexpr,
    CHUNK: tl.constexpr,
    KERNEL: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    RING: tl.constexpr = KERNEL - 1 + FRAMES
    row = tl.program_id(0).to(tl.int64)
    before = tl.load(numbers + row) * CHUNK
    start = before % RING
    t, d = tl.arange(0, BLOCK_T), tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    exists, known = t < FRAMES, d < dim
    ring += tl.load(slots + row).to(tl.int64) * RING * dim
    _put_gated(projected, ring, start, row, t, d, stride, dim, FRAMES, RING)
    total = tl.zeros((BLOCK_T, BLOCK_D), dtype=tl.float32)
    for k in tl.static_range(KERNEL):
        seen = t + (k - KERNEL + 1)
        heard = (exists & (before + seen >= 0))[:, None] & known[None, :]
        place = ring + ((start + seen + RING) % RING)[:, None] * dim + d[None, :]
        frame = tl.load(place, mask=heard, other=0.0).to(tl.float32)
        total += frame * tl.load(weight + k * dim + d, mask=known, other=0.0).to(tl.float32)[None, :]
    total += tl.load(bias + d, mask=known, other=0.0).to(tl.float32)[None, :]
    y = activate(total, ACTIVATION).to(out.dtype.element_ty)
    tl.store(out + (row * FRAMES + t[:, None]) * dim + d[None, :], y, mask=exists[:, None] & known[None, :])


@triton.jit
def _ring_depthwise_kernel(
    projected,
    slots,
    numbers,
    ring,
    weight,
    bias,
    causal_weight,
    causal_bias,
    edges,
    out,
    stride,
    dim,
    CHUNK: tl.constexpr,
    RING: tl.constexpr,
    KERNEL: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    before = tl.load(numbers + row) * CHUNK
    start = before % RING
    t, d = tl.arange(0, BLOCK_T), tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    exists, known = t < CHUNK, d < dim
    inside = exists[:, None] & known[None, :]
    ring += tl.load(slots + row).to(tl.int64) * RING * dim
    _put_gated(projected, ring, start, row, t, d, stride, dim, CHUNK, RING)
    within = tl.zeros((BLOCK_T, BLOCK_D), dtype=tl.float32)
    past = tl.zeros((BLOCK_T, BLOCK_D), dtype=tl.float32)
    for k in tl.static_range(KERNEL):
        seen = t + (k - KERNEL // 2)
        heard = exists & (before + seen >= 0) & (seen < CHUNK)
        place = ring + ((start + seen + RING) % RING)[:, None] * dim + d[None, :]
        frame = tl.load(place, mask=heard[:, None] & known[None, :], other=0.0).to(tl.float32)
        factor = tl.load(weight + k * dim + d, mask=known, other=0.0).to(tl.float32)
        within += tl.where((seen >= 0)[:, None], frame * factor[None, :], 0.0)
        if k <= KERNEL // 2:
            factor = tl.load(causal_weight + k * dim + d, mask=known, other=0.0).to(tl.float32)
            past += frame * factor[None, :]
    within += tl.load(bias + d, mask=known, other=0.0).to(tl.float32)[None, :]
    past += tl.load(causal_bias + d, mask=known, other=0.0).to(tl.float32)[None, :]
    from_end = t + (KERNEL - CHUNK)  # where the scales of the last frames stand
    first = (exists & (t < KERNEL))[:, None] & known[None, :]
    last = (exists & (from_end >= 0))[:, None] & known[None, :]
    scale = 1.0 + tl.load(edges + t[:, None] * dim + d[None, :], mask=first, other=0.0).to(tl.float32)
    at = edges + (KERNEL + from_end)[:, None] * dim + d[None, :]
    scale += tl.load(at, mask=last, other=0.0).to(tl.float32)
    y = activate(past + within * scale, ACTIVATION).to(out.dtype.element_ty)
    tl.store(out + (row * CHUNK + t[:, None]) * dim + d[None, :], y, mask=inside)


@triton.jit
def _with_past_kernel(
    x, slots, numbers, past, out, frames, width, KEPT: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < width
    began = tl.load(numbers + row) > 0
    past += tl.load(slots + row).to(tl.int64) * KEPT * width
    x += row * frames * width
    out += row * (KEPT + frames) * width
    for t in tl.static_range(KEPT):
        tl.store(out + t * width + i, tl.load(past + t * width + i, mask=inside & began, other=0.0), mask=inside)
    for t in range(frames):
        frame = tl.load(x + t * width + i, mask=inside, other=0.0)
        tl.store(out + (KEPT + t) * width + i, frame, mask=inside)
    for t in tl.static_range(KEPT):
        frame = tl.load(x + (CHUNK - KEPT + t) * width + i, mask=inside, other=0.0)
        tl.store(past + t * width + i, frame, mask=inside)
