"""The Conformer's attention for streams in chunks, with right context, over keys and values in rings.

A window holds the chunk's frames and `right` frames of the next chunk. All of them attend to the left context and to
each other, but only the chunk's own enter the ring: the next window computes the others again. A ring [left context +
chunk, 2 D] takes every frame's key and value at its number modulo the ring's length, so that a chunk overwrites frames
beyond the left context while other programs still read the context itself.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.precision import dot_precision
from moulin.gpu.kernels.relative_attention import scores_by_distance, with_block
from moulin.gpu.kernels.stream_attention import Chunks


def ring_relative_attention_plain(
    projected: Tensor, at: Chunks, ring: Tensor, table: Tensor, shift: Tensor, *, chunk: int
) -> Tensor:
    """The plain twin of `ring_relative_attention`, window by window."""
    (heads, dim), batch = shift.shape, len(at.slots)
    width, frames, left = heads * dim, len(projected) // batch, ring.shape[1] - chunk
    out = torch.empty(len(projected), width, dtype=projected.dtype, device=projected.device)
    for row, (slot, number) in enumerate(zip(at.slots.tolist(), at.numbers.tolist(), strict=True)):
        window, begin = projected[row * frames : (row + 1) * frames], number * chunk
        past = torch.arange(max(0, begin - left), begin, device=ring.device)
        memory = torch.cat([ring[slot, past % ring.shape[1]], window[:, width:]]).float()
        key, value = (half.unflatten(1, (heads, dim)).transpose(0, 1) for half in memory.chunk(2, dim=1))
        query = window[:, :width].float().unflatten(1, (heads, dim)).transpose(0, 1)
        seen = torch.arange(-len(past), frames, device=ring.device)
        distance = seen[None, :] - torch.arange(frames, device=ring.device)[:, None] + left + frames - 1
        scores = (query + shift.float()[:, None]) @ key.transpose(1, 2)
        scores += torch.einsum("htd,tshd->hts", query, table.float()[distance].unflatten(2, (heads, dim)))
        mixed = scores.softmax(dim=-1) @ value
        out[row * frames : (row + 1) * frames] = mixed.transpose(0, 1).flatten(1).to(out.dtype)
        own = torch.arange(begin, begin + chunk, device=ring.device)
        ring[slot, own % ring.shape[1]] = window[:chunk, width:]
    return out


def ring_relative_attention(
    projected: Tensor, at: Chunks, ring: Tensor, table: Tensor, shift: Tensor, *, chunk: int
) -> Tensor:
    """softmax((q + shift) k + q p) v of windows of T frames, of which the first `chunk` are the chunk's own: [B T, D].

    `projected` [B T, 3 D]: queries q, keys k and values v; `shift` [heads, D / heads]. `table` [L + 2 T - 1, D]: the
    projected encodings p of distances (key minus query) from -(L + T - 1) on. `ring` [slots, L + chunk, 2 D] takes the
    chunk's keys and values.
    """
    (heads, dim), batch = shift.shape, len(at.slots)
    rows, frames, left = len(projected), len(projected) // batch, ring.shape[1] - chunk
    by_distance = scores_by_distance(projected, table, heads, 0, left + 2 * frames - 1)
    out = torch.empty(rows, heads * dim, dtype=projected.dtype, device=projected.device)
    block_m = max(16, min(64, triton.next_power_of_2(frames)))
    _ring_relative_kernel[(batch, heads, triton.cdiv(frames, block_m))](
        projected,
        at.slots,
        at.numbers,
        ring,
        by_distance,
        shift,
        out,
        rows,
        by_distance.shape[2],
        projected.stride(0),
        frames,
        chunk,
        left,
        dim,
        block_m,
        max(16, min(128 if block_m == 16 else 64, triton.next_power_of_2(left + frames))),
        max(16, triton.next_power_of_2(dim)),
        dot_precision(projected.dtype),
        num_warps=4,
        num_stages=2,
    )
    return out


@triton.jit(do_not_specialize=["rows"])
def _ring_relative_kernel(
    projected,
    slots,
    numbers,
    ring,
    by_distance,
    shift,
    out,
    rows,
    distances,
    stride,
    FRAMES: tl.constexpr,
    CHUNK: tl.constexpr,
    LEFT: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row, head, heads = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    before = tl.load(numbers + row) * CHUNK
    start = before % (LEFT + CHUNK)
    m, d = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    known = (d < DIM)[None, :]
    exists = (m < FRAMES)[:, None]
    width = heads * DIM
    projected += row * FRAMES * stride + head * DIM
    ring += tl.load(slots + row).to(tl.int64) * (LEFT + CHUNK) * 2 * width + head * DIM
    query_at = projected + m[:, None] * stride + d[None, :]
    query = tl.load(query_at, mask=exists & known, other=0.0).to(tl.float32)
    query += tl.load(shift + head * DIM + d, mask=d < DIM, other=0.0).to(tl.float32)[None, :]
    query = query.to(projected.dtype.element_ty)
    # Column n of a query's scores by distance is for frame n of left context and window.
    places = by_distance + ((head.to(tl.int64) * rows + row * FRAMES + m) * distances + FRAMES - 1 - m)[:, None]

    # The highest score so far is finite: no frame of a block before the stream's beginning is attended to.
    peak = tl.full((BLOCK_M,), -1.0e30, dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    values = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    for first in range(0, LEFT + FRAMES, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        own, past = (n >= LEFT) & (n < LEFT + FRAMES), (n < LEFT) & (before + n >= LEFT)
        own_at = projected + width + (n - LEFT)[:, None] * stride + d[None, :]
        past_at = ring + ((start + n + CHUNK) % (LEFT + CHUNK))[:, None] * (2 * width) + d[None, :]
        key = tl.load(own_at, mask=own[:, None] & known, other=0.0)
        key += tl.load(past_at, mask=past[:, None] & known, other=0.0)
        value = tl.load(own_at + width, mask=own[:, None] & known, other=0.0)
        value += tl.load(past_at + width, mask=past[:, None] & known, other=0.0)
        heard = (own | past)[None, :]
        place = tl.load(places + n[None, :], mask=exists & heard, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) + place.to(tl.float32)
        scores = tl.where(heard, scores * 1.4426950408889634, float("-inf"))
        values, total, peak = with_block(scores, value, values, total, peak, PRECISION)
    at = out + (row * FRAMES + m[:, None]) * width + head * DIM + d[None, :]
    tl.store(at, (values / total[:, None]).to(out.dtype.element_ty), mask=exists & known)

    kept = (m < CHUNK)[:, None] & known
    key_at = ring + ((start + m) % (LEFT + CHUNK))[:, None] * (2 * width) + d[None, :]
    tl.store(key_at, tl.load(query_at + width, mask=kept, other=0.0), mask=kept)
    tl.store(key_at + width, tl.load(query_at + 2 * width, mask=kept, other=0.0), mask=kept)
