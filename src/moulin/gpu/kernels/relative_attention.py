"""The Conformer's attention, by content and by distance, without a matrix of weights in memory.

Scores by distance are one product of queries and encoded distances for all rows. In the row of a later query the same
key stands one column further to the left; the kernel reads each row's columns where they are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.precision import dot_precision


def relative_attention_plain(projected: Tensor, lengths: Tensor, table: Tensor, shift: Tensor) -> Tensor:
    """What `relative_attention` computes, for all pairs at once."""
    batch, frames, _ = projected.shape
    heads, dim = shift.shape
    query, key, value = (
        piece.reshape(batch, frames, heads, dim).transpose(1, 2) for piece in projected.float().chunk(3, dim=-1)
    )
    place = torch.arange(frames, device=table.device)
    by_pair = table.float()[place[None, :] - place[:, None] + len(table) // 2].reshape(frames, frames, heads, dim)
    scores = (query + shift.float()[:, None]) @ key.transpose(2, 3)
    scores += torch.einsum("bhtd,tshd->bhts", query, by_pair)
    beyond = place >= lengths[:, None]
    weights = scores.masked_fill(beyond[:, None, None], float("-inf")).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2).to(projected.dtype)


def relative_attention(projected: Tensor, lengths: Tensor, table: Tensor, shift: Tensor) -> Tensor:
    """softmax((q + shift) k + q p) v: [B, T, D].

    `projected` [B, T, 3 D]: queries q, keys k and values v; `shift` [heads, D / heads]. `table` [2 R - 1, D], R > T:
    the projected encodings p of distances (key less query) from -(R - 1) on. `lengths` int32 [B]: what is at and beyond
    them is not attended to; the output there is finite and means nothing.
    """
    batch, frames, width = projected.shape
    heads, dim = shift.shape
    rows = projected.view(batch * frames, width)
    zero = len(table) // 2
    query = rows[:, : heads * dim].unflatten(1, (heads, dim)).transpose(0, 1)
    distances = table[zero - frames : zero + frames].unflatten(1, (heads, dim)).permute(1, 2, 0)
    by_distance = torch.bmm(query, distances)  # [heads, B T, 2 T]; distance 0 is in column T
    out = torch.empty(batch, frames, heads * dim, dtype=projected.dtype, device=projected.device)
    block = 64
    _relative_attention_kernel[(triton.cdiv(frames, block), heads, batch)](
        projected,
        lengths,
        by_distance,
        shift,
        out,
        frames,
        batch * frames,
        projected.stride(1),
        dim,
        block,
        block,
        max(16, triton.next_power_of_2(dim)),
        dot_precision(projected.dtype),
        num_warps=4,
        num_stages=2,
    )
    return out


@triton.jit(do_not_specialize=["frames", "rows"])
def _relative_attention_kernel(
    projected,
    lengths,
    by_distance,
    shift,
    out,
    frames,
    rows,
    stride,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    heads = tl.num_programs(1)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    known = d < DIM
    exists = m < frames
    inside = exists[:, None] & known[None, :]
    length = tl.load(lengths + row)
    projected += row * frames * stride + head * DIM
    # Of query m the column of key 0 is T - m.
    places = by_distance + ((head.to(tl.int64) * rows + row * frames + m) * (2 * frames) + frames - m)[:, None]

    query = tl.load(projected + m[:, None] * stride + d[None, :], mask=inside, other=0.0).to(tl.float32)
    query += tl.load(shift + head * DIM + d, mask=known, other=0.0).to(tl.float32)[None, :]
    query = query.to(projected.dtype.element_ty)
    peak = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    values = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    for start in range(0, length, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        heard = n < length
        at = projected + heads * DIM + n[:, None] * stride + d[None, :]
        key = tl.load(at, mask=heard[:, None] & known[None, :], other=0.0)
        value = tl.load(at + heads * DIM, mask=heard[:, None] & known[None, :], other=0.0)
        place = tl.load(places + n[None, :], mask=exists[:, None] & heard[None, :], other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) + place.to(tl.float32)
        scores = tl.where(heard[None, :], scores * 1.4426950408889634, float("-inf"))

        higher = tl.maximum(peak, tl.max(scores, axis=1))
        weights = tl.exp2(scores - higher[:, None])
        keep = tl.exp2(peak - higher)
        total = total * keep + tl.sum(weights, axis=1)
        values = values * keep[:, None]
        values = tl.dot(weights.to(value.dtype), value, values, input_precision=PRECISION)
        peak = higher
    values = values / total[:, None]
    at = out + (row * frames + m[:, None]) * (heads * DIM) + head * DIM + d[None, :]
    tl.store(at, values.to(out.dtype.element_ty), mask=inside)
