"""Products of attention weights and values in Zipformer's modules."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.attention_weights import KEY_BLOCK, AttentionWeights
from moulin.gpu.kernels.precision import dot_precision


def weighted_values_plain(weights: Tensor, values: Tensor) -> Tensor:
    """The plain twin of `weighted_values`, with `weights` [B, heads, T, T]."""
    batch, heads, frames, _ = weights.shape
    split = values.float().reshape(batch, frames, heads, -1).transpose(1, 2)
    return (weights @ split).transpose(1, 2).flatten(2).to(values.dtype)


def weighted_values(weights: AttentionWeights, values: Tensor, lengths: Tensor) -> Tensor:
    """`weights` times `values` [B, T, heads * dim]: the same shape."""
    batch, heads, frames, width = weights.blocks.shape
    dim = values.shape[2] // heads
    out = torch.empty(batch, frames, heads * dim, dtype=values.dtype, device=values.device)
    block_m = 64
    _weighted_values_kernel[(triton.cdiv(frames, block_m), heads, batch)](
        weights.blocks,
        weights.scales,
        values,
        lengths,
        out,
        frames,
        width,
        values.stride(1),
        dim,
        block_m,
        KEY_BLOCK,
        max(16, triton.next_power_of_2(dim)),
        dot_precision(values.dtype),
        num_warps=4,
        num_stages=3,
    )
    return out


@triton.jit
def _weighted(
    weights, scales, values, m, columns, num_columns, length, frames, width, stride, gated_at,
    GATED: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows `m` of an utterance's weights times the `columns` below `num_columns` of its `values` [T, stride], float32.
    GATED weights are of x tanh(s), s in these columns and x `gated_at` columns further."""
    inside = m < frames
    total = tl.zeros((m.shape[0], columns.shape[0]), dtype=tl.float32)
    for start in range(0, length, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        weight = tl.load(weights + m[:, None] * width + n[None, :], mask=inside[:, None], other=0.0)
        heard = (n < length)[:, None] & (columns < num_columns)[None, :]
        at = values + n[:, None] * stride + columns[None, :]
        value = tl.load(at, mask=heard, other=0.0)
        if GATED:
            x = tl.load(at + gated_at, mask=heard, other=0.0).to(tl.float32)
            value = (x * (2.0 * tl.sigmoid(2.0 * value.to(tl.float32)) - 1.0)).to(weight.dtype)
        scale = tl.load(scales + start // BLOCK_N * frames + m, mask=inside, other=0.0)
        total += tl.dot(weight, value, input_precision=PRECISION) * scale[:, None]
    return total


@triton.jit(do_not_specialize=["frames"])
def _weighted_values_kernel(
    weights,
    scales,
    values,
    lengths,
    out,
    frames,
    width,
    stride,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    heads = tl.num_programs(1)
    m = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    length = tl.load(lengths + row)
    inside = m < frames
    weights += (row * heads + head) * frames * width
    scales += (row * heads + head) * (width // BLOCK_N) * frames
    values += row * frames * stride + head * DIM
    total = _weighted(
        weights, scales, values, m, d, DIM, length, frames, width, stride, 0, False, BLOCK_N, PRECISION
    )  # fmt: skip
    at = out + (row * frames + m[:, None]) * (heads * DIM) + head * DIM + d[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=inside[:, None] & (d < DIM)[None, :])


def gated_values_plain(weights: Tensor, projected: Tensor) -> Tensor:
    """The plain twin of `gated_values`, with `weights` [B, heads, T, T]."""
    s, x, y = projected.float().chunk(3, dim=-1)
    return (y * (weights[:, 0] @ (x * s.tanh()))).to(projected.dtype)


def gated_values(weights: AttentionWeights, projected: Tensor, lengths: Tensor) -> Tensor:
    """Zipformer2's NonlinAttention between its projections: y * (weights @ (tanh(s) * x)), [B, T, C].

    `projected` [B, T, 3 C] holds s, x and y; only the first head of `weights` is used.
    """
    batch, heads, frames, width = weights.blocks.shape
    channels = projected.shape[2] // 3
    out = torch.empty(batch, frames, channels, dtype=projected.dtype, device=projected.device)
    block_m, block_c = 64, max(16, min(64, triton.next_power_of_2(channels)))
    _gated_values_kernel[(triton.cdiv(frames, block_m), triton.cdiv(channels, block_c), batch)](
        weights.blocks,
        weights.scales,
        projected,
        lengths,
        out,
        frames,
        width,
        heads,
        projected.stride(1),
        channels,
        block_m,
        KEY_BLOCK,
        block_c,
        dot_precision(projected.dtype),
        num_warps=4,
        num_stages=2,
    )
    return out


@triton.jit(do_not_specialize=["frames"])
def _gated_values_kernel(
    weights,
    scales,
    projected,
    lengths,
    out,
    frames,
    width,
    heads,
    stride,
    channels,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(2).to(tl.int64)
    m = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    length = tl.load(lengths + row)
    inside, known = m < frames, c < channels
    weights += row * heads * frames * width
    scales += row * heads * (width // BLOCK_N) * frames
    projected += row * frames * stride
    total = _weighted(
        weights, scales, projected, m, c, channels, length, frames, width, stride, channels, True, BLOCK_N, PRECISION
    )  # fmt: skip
    stored = inside[:, None] & known[None, :]
    y = tl.load(projected + m[:, None] * stride + 2 * channels + c[None, :], mask=stored, other=0.0)
    total *= y.to(tl.float32)
    tl.store(out + (row * frames + m[:, None]) * channels + c[None, :], total.to(out.dtype.element_ty), mask=stored)
