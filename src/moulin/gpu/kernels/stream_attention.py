"""Attention of streams in chunks: the past frames that a chunk attends to lie in rings on the card, a ring a stream.

A ring [frames of the past + frames of a chunk] takes every frame at its number modulo the ring's length, so that a
chunk overwrites frames beyond the left context, and nothing is moved. Each program first puts the chunk's own frames in
its part of the ring, and then finds all frames that the chunk attends to there. Before its first chunk a stream's ring
may hold anything: frames before the beginning are never read.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.precision import dot_precision

MAX_BLOCK = 1 << 17
"""The largest `block_size` that is compiled: chunks of 64 frames with 256 before them, and 4 channels for positions.
Twice as much did not compile in five minutes (H200, Triton-lang 3.6)."""


class Chunks(NamedTuple):
    """The chunks of a batch: which streams they are of, and which of their chunks."""

    slots: Tensor
    """int32 [B], all different but for the rows that fill a batch up."""
    numbers: Tensor
    """int32 [B], the chunks that each stream has had before."""


def ring_attention_weights(
    projected: Tensor,
    at: Chunks,
    keys: Tensor,
    table: Tensor,
    *,
    chunk: int,
    position_at: int,
    pos_dim: int,
    zeros_before: bool = False,
) -> Tensor:
    """softmax(query key + position distance) over the frames in the rings, [B, heads, chunk, K] in the order of a ring,
    K the ring's length rounded up, with zeros for frames that are not attended to.

    `projected` [B chunk, C] holds the queries of all heads, then their keys, and from column `position_at` on their
    positional queries; `table` is as in `moulin.gpu.kernels.attention_weights`, for distances from -(ring - 1) on.
    `keys` [slots, ring, heads * query_dim] takes the chunk's keys. Frames before a stream's beginning are not attended
    to, or with `zeros_before` have keys of zeros.
    """
    batch = len(at.slots)
    heads, distances, padded_pos_dim = table.shape
    _, ring, key_at = keys.shape
    query_dim = key_at // heads
    width = _width(ring)
    out = torch.empty(batch, heads, chunk, width, dtype=projected.dtype, device=projected.device)
    _ring_weights_kernel[(batch, heads)](
        projected,
        at.slots,
        at.numbers,
        keys,
        table,
        out,
        projected.stride(0),
        key_at,
        position_at,
        distances,
        width,
        chunk,
        ring,
        query_dim,
        pos_dim,
        zeros_before,
        max(16, triton.next_power_of_2(chunk)),
        triton.next_power_of_2(width),
        max(16, triton.next_power_of_2(query_dim)),
        padded_pos_dim,
        dot_precision(projected.dtype),
        num_warps=4,
    )
    return out


def block_size(chunk: int, ring: int, pos_dim: int) -> int:
    """Elements of the largest block that `ring_attention_weights` works in: of frames, keys, and channels of a head for
    positions. MAX_BLOCK at most."""
    sizes = max(16, triton.next_power_of_2(chunk)), triton.next_power_of_2(_width(ring))
    return int(sizes[0] * sizes[1] * triton.next_power_of_2(pos_dim))


def ring_values(weights: Tensor, values: Tensor, at: Chunks, ring: Tensor) -> Tensor:
    """`weights` of `ring_attention_weights` times the values in `ring` [slots, ring, heads * dim], which takes the
    chunk's `values` [B chunk, heads * dim]: the same shape."""
    batch, heads, chunk, width = weights.shape
    dim = values.shape[1] // heads
    out = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    _ring_values_kernel[(batch, heads)](
        weights,
        values,
        at.slots,
        at.numbers,
        ring,
        out,
        values.stride(0),
        width,
        chunk,
        ring.shape[1],
        dim,
        max(16, triton.next_power_of_2(chunk)),
        _block(ring.shape[1]),
        max(16, triton.next_power_of_2(dim)),
        dot_precision(values.dtype),
        num_warps=2,
    )
    return out


def ring_gated_values(weights: Tensor, projected: Tensor, at: Chunks, ring: Tensor) -> Tensor:
    """y * (weights @ (tanh(s) * x)) by the first head: [B chunk, C]. `projected` [B chunk, 3 C] holds s, x and y;
    `ring` [slots, ring, C] takes the chunk's tanh(s) * x."""
    batch, heads, chunk, width = weights.shape
    channels = projected.shape[1] // 3
    out = torch.empty(batch * chunk, channels, dtype=projected.dtype, device=projected.device)
    block_c = max(16, min(64, triton.next_power_of_2(channels)))
    _ring_gated_kernel[(batch, triton.cdiv(channels, block_c))](
        weights,
        projected,
        at.slots,
        at.numbers,
        ring,
        out,
        projected.stride(0),
        width,
        heads,
        channels,
        chunk,
        ring.shape[1],
        max(16, triton.next_power_of_2(chunk)),
        _block(ring.shape[1]),
        block_c,
        dot_precision(projected.dtype),
        num_warps=4,
    )
    return out


def _block(ring: int) -> int:
    return int(max(16, min(64, triton.next_power_of_2(ring))))


def _width(ring: int) -> int:
    return -(-ring // _block(ring)) * _block(ring)


@triton.jit
def frames_after(n, start, CHUNK: tl.constexpr, RING: tl.constexpr):
    """The distance from the chunk's first frame to the frame at place n of a ring, where the chunk begins at `start`;
    negative for the past."""
    since = (n - start + RING) % RING
    return tl.where(since < CHUNK, since, since - RING)


@triton.jit
def _ring_weights_kernel(
    projected,
    slots,
    numbers,
    keys,
    table,
    out,
    stride,
    key_at,
    position_at,
    distances,
    WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
    RING: tl.constexpr,
    QUERY_DIM: tl.constexpr,
    POS_DIM: tl.constexpr,
    ZEROS_BEFORE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row, head, heads = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    before = tl.load(numbers + row) * CHUNK
    start = before % RING
    m, n = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    d, p = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_P)
    projected += row * CHUNK * stride
    exists, known = (m < CHUNK)[:, None], (d < QUERY_DIM)[None, :]
    own = projected + head * QUERY_DIM + m[:, None] * stride + d[None, :]
    query = tl.load(own, mask=exists & known, other=0.0)
    key = tl.load(own + key_at, mask=exists & known, other=0.0)
    at = projected + position_at + head * POS_DIM + m[:, None] * stride + p[None, :]
    position = tl.load(at, mask=exists & (p < POS_DIM)[None, :], other=0.0).to(tl.float32)

    keys += tl.load(slots + row).to(tl.int64) * RING * heads * QUERY_DIM + head * QUERY_DIM
    tl.store(keys + ((start + m) % RING)[:, None] * (heads * QUERY_DIM) + d[None, :], key, mask=exists & known)
    tl.debug_barrier()
    after = frames_after(n, start, CHUNK, RING)
    heard = (n < RING) & (before + after >= 0)
    at = keys + n[None, :] * (heads * QUERY_DIM) + d[:, None]
    seen = tl.load(at, mask=heard[None, :] & (d < QUERY_DIM)[:, None], other=0.0)
    scores = tl.dot(query, seen, input_precision=PRECISION)
    if ZEROS_BEFORE:
        heard = n < RING
    # Frames that do not exist take the last one's distances.
    distance = after[None, :] - tl.minimum(m, CHUNK - 1)[:, None] + (RING - 1)
    distance = tl.where(heard[None, :], distance, 0)
    place = tl.load(table + ((head * distances + distance) * BLOCK_P)[:, :, None] + p[None, None, :])
    scores += tl.sum(place.to(tl.float32) * position[:, None, :], axis=2)
    scores = tl.where(heard[None, :], scores, float("-inf"))
    scores = tl.exp(scores - tl.max(scores, axis=1)[:, None])
    scores /= tl.sum(scores, axis=1)[:, None]
    out += (row * heads + head) * CHUNK * WIDTH
    at = out + m[:, None] * WIDTH + n[None, :]
    tl.store(at, scores.to(out.dtype.element_ty), mask=exists & (n < WIDTH)[None, :])


@triton.jit
def _weighted_ring(
    weights, own, ring, before, m, columns, num_columns, stride,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr, RING: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`weights` [CHUNK, WIDTH] times the `columns` below `num_columns` of a stream's `ring` [RING, stride], which first
    takes the chunk's `own` [m, columns]; float32. Frames that were never written may be NaN, which no weight makes
    zero, and are not read."""
    start = before % RING
    known = (columns < num_columns)[None, :]
    at = ring + ((start + m) % RING)[:, None] * stride + columns[None, :]
    tl.store(at, own, mask=(m < CHUNK)[:, None] & known)
    tl.debug_barrier()
    total = tl.zeros((m.shape[0], columns.shape[0]), dtype=tl.float32)
    for first in tl.static_range(0, WIDTH, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        heard = (n < RING) & (before + frames_after(n, start, CHUNK, RING) >= 0)
        weight = tl.load(weights + m[:, None] * WIDTH + n[None, :], mask=(m < CHUNK)[:, None], other=0.0)
        seen = tl.load(ring + n[:, None] * stride + columns[None, :], mask=heard[:, None] & known, other=0.0)
        total = tl.dot(weight, seen, total, input_precision=PRECISION)
    return total


@triton.jit
def _ring_values_kernel(
    weights,
    values,
    slots,
    numbers,
    ring,
    out,
    stride,
    WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
    RING: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row, head, heads = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    before = tl.load(numbers + row) * CHUNK
    m, d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    inside = (m < CHUNK)[:, None] & (d < DIM)[None, :]
    own = tl.load(values + (row * CHUNK + m[:, None]) * stride + head * DIM + d[None, :], mask=inside, other=0.0)
    ring += tl.load(slots + row).to(tl.int64) * RING * heads * DIM + head * DIM
    weights += (row * heads + head) * CHUNK * WIDTH
    total = _weighted_ring(weights, own, ring, before, m, d, DIM, heads * DIM, WIDTH, CHUNK, RING, BLOCK_N, PRECISION)
    at = out + (row * CHUNK + m[:, None]) * (heads * DIM) + head * DIM + d[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _ring_gated_kernel(
    weights,
    projected,
    slots,
    numbers,
    ring,
    out,
    stride,
    WIDTH: tl.constexpr,
    heads,
    channels,
    CHUNK: tl.constexpr,
    RING: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    before = tl.load(numbers + row) * CHUNK
    m, c = tl.arange(0, BLOCK_M), tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = (c < channels)[None, :]
    inside = (m < CHUNK)[:, None] & known
    at = projected + (row * CHUNK + m[:, None]) * stride + c[None, :]
    s = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(at + channels, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(at + 2 * channels, mask=inside, other=0.0).to(tl.float32)
    own = (x * (2.0 * tl.sigmoid(2.0 * s) - 1.0)).to(ring.dtype.element_ty)
    ring += tl.load(slots + row).to(tl.int64) * RING * channels
    weights += row * heads * CHUNK * WIDTH
    total = _weighted_ring(weights, own, ring, before, m, c, channels, channels, WIDTH, CHUNK, RING, BLOCK_N, PRECISION)
    tl.store(
        out + (row * CHUNK + m[:, None]) * channels + c[None, :], (total * y).to(out.dtype.element_ty), mask=inside
    )
