"""The Conformer's attention, by content and by distance, without a matrix of weights in memory.

Scores by distance are one product of queries and encoded distances for all rows. From one query's row to the next the
column of a key moves one to the left; the kernel reads each row's columns in place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.precision import dot_precision


def relative_attention_plain(projected: Tensor, lengths: Tensor, table: Tensor, shift: Tensor) -> Tensor:
    """The plain twin of `relative_attention`, for all pairs at once."""
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
    the projected encodings p of distances (key minus query) from -(R - 1) on. Frames at and beyond `lengths` int32 [B]
    are not attended to; the output there is finite and undefined.
    """
    batch, frames, _ = projected.shape
    heads, dim = shift.shape
    rows = batch * frames
    by_distance = scores_by_distance(projected.view(rows, -1), table, heads, len(table) // 2 - frames, 2 * frames)
    distances = by_distance.shape[2]
    out = torch.empty(batch, frames, heads * dim, dtype=projected.dtype, device=projected.device)
    block = 64
    _relative_attention_kernel[(triton.cdiv(frames, block), heads, batch)](
        projected,
        lengths,
        by_distance,
        shift,
        out,
        frames,
        rows,
        distances,
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


def scores_by_distance(projected: Tensor, table: Tensor, heads: int, first: int, distances: int) -> Tensor:
    """q p for every query and distance: [heads, rows, `distances` padded to whole vectors].

    `projected` [rows, C] holds the queries of all heads first. Column 0 is the distance in row `first` of `table`
    [R, D]; columns for rows that the table lacks are zeros.
    """
    rows, dim, distances = len(projected), table.shape[1] // heads, triton.cdiv(distances, 64) * 64
    out = torch.empty(heads, rows, distances, dtype=projected.dtype, device=projected.device)
    _by_distance_kernel[(triton.cdiv(rows, 128) * triton.cdiv(distances, 128), heads)](
        projected,
        table,
        out,
        rows,
        distances,
        projected.stride(0),
        first,
        len(table),
        dim,
        128,
        128,
        max(16, triton.next_power_of_2(dim)),
        dot_precision(projected.dtype),
        num_warps=8,
    )
    return out


@triton.jit(do_not_specialize=["rows", "first", "table_rows"])
def _by_distance_kernel(
    projected,
    table,
    out,
    rows,
    distances,
    stride,
    first,
    table_rows,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The time goes into writing [heads, rows, distances]."""
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    blocks = tl.cdiv(distances, BLOCK_N)
    m = (tl.program_id(0) // blocks * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    n = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    known = d < DIM
    query = tl.load(
        projected + m[:, None] * stride + head * DIM + d[None, :], mask=(m < rows)[:, None] & known[None, :], other=0.0
    )
    place = tl.load(
        table + (first + n)[None, :] * (heads * DIM) + head * DIM + d[:, None],
        mask=(first + n < table_rows)[None, :] & known[:, None],
        other=0.0,
    )
    scores = tl.dot(query, place, input_precision=PRECISION)
    at = out + (head * rows + m[:, None]) * distances + n[None, :]
    tl.store(at, scores.to(out.dtype.element_ty), mask=(m < rows)[:, None] & (n < distances)[None, :])


@triton.jit
def with_block(scores, value, values, total, peak, PRECISION: tl.constexpr):
    """The attended values so far with another block of keys: `values` [M, D] are weighted by 2^(score - peak), of which
    `total` [M] is the sum. `scores` [M, N] are in base 2, `value` [N, D]. Returns the new three."""
    higher = tl.maximum(peak, tl.max(scores, axis=1))
    weights = tl.exp2(scores - higher[:, None])
    keep = tl.exp2(peak - higher)
    total = total * keep + tl.sum(weights, axis=1)
    values = tl.dot(weights.to(value.dtype), value, values * keep[:, None], input_precision=PRECISION)
    return values, total, higher


@triton.jit(do_not_specialize=["frames", "rows"])
def _relative_attention_kernel(
    projected,
    lengths,
    by_distance,
    shift,
    out,
    frames,
    rows,
    distances,
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
    # For query m the column of key 0 is T - m.
    places = by_distance + ((head.to(tl.int64) * rows + row * frames + m) * distances + frames - m)[:, None]

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
        values, total, peak = with_block(scores, value, values, total, peak, PRECISION)
    values = values / total[:, None]
    at = out + (row * frames + m[:, None]) * (heads * DIM) + head * DIM + d[None, :]
    tl.store(at, values.to(out.dtype.element_ty), mask=inside)
