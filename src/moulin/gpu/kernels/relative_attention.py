"""The Conformer's attention, by content and by distance, without a matrix of scores in memory.

Scores by distance are a product of queries and encoded distances; in the row of a later query the same key stands one
column further to the left. A block of 64 queries and 64 keys has 127 distances: it multiplies with these and gathers
each row's 64, within the multiprocessor (a shifted copy of all scores would be the size of four of the layer's inputs).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.precision import dot_precision


def relative_attention_plain(
    projected: Tensor, lengths: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor
) -> Tensor:
    """What `relative_attention` computes, for all pairs at once."""
    batch, frames, _ = projected.shape
    heads, dim = content_bias.shape
    query, key, value = (
        piece.reshape(batch, frames, heads, dim).transpose(1, 2) for piece in projected.float().chunk(3, dim=-1)
    )
    query = query * dim**-0.5
    place = torch.arange(frames, device=table.device)
    by_pair = table.float()[place[None, :] - place[:, None] + len(table) // 2].reshape(frames, frames, heads, dim)
    scores = (query + content_bias.float()[:, None]) @ key.transpose(2, 3)
    scores += torch.einsum("bhtd,tshd->bhts", query + position_bias.float()[:, None], by_pair)
    beyond = place >= lengths[:, None]
    weights = scores.masked_fill(beyond[:, None, None], float("-inf")).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2).to(projected.dtype)


def relative_attention(
    projected: Tensor, lengths: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor
) -> Tensor:
    """softmax((q + u) k + (q + v) p) v': [B, T, D].

    `projected` [B, T, 3 D]: queries q (here divided by the root of the head's dimension), keys k and values v'.
    `table` [2 R - 1, D], R >= T: the projected encodings p of distances (key less query) from -(R - 1) on.
    `content_bias` u and `position_bias` v [heads, D / heads]. `lengths` int32 [B]: what is at and beyond them is not
    attended to; the output there is finite and means nothing.
    """
    batch, frames, _ = projected.shape
    heads, dim = content_bias.shape
    out = torch.empty(batch, frames, heads * dim, dtype=projected.dtype, device=projected.device)
    block_m = block_n = 64
    _relative_attention_kernel[(triton.cdiv(frames, block_m), heads, batch)](
        projected,
        lengths,
        table,
        content_bias,
        position_bias,
        out,
        frames,
        projected.stride(1),
        len(table),
        dim**-0.5,
        dim,
        block_m,
        block_n,
        max(16, triton.next_power_of_2(dim)),
        dot_precision(projected.dtype),
        num_warps=4,
        num_stages=2,
    )
    return out


@triton.jit(do_not_specialize=["frames", "scale"])
def _relative_attention_kernel(
    projected,
    lengths,
    table,
    content_bias,
    position_bias,
    out,
    frames,
    stride,
    distances,
    scale,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    heads = tl.num_programs(1)
    local_m, local_n = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    first = tl.program_id(0) * BLOCK_M
    m = first + local_m
    d = tl.arange(0, BLOCK_D)
    known = d < DIM
    inside = (m < frames)[:, None] & known[None, :]
    length = tl.load(lengths + row)
    projected += row * frames * stride + head * DIM
    table += head * DIM

    query = tl.load(projected + m[:, None] * stride + d[None, :], mask=inside, other=0.0).to(tl.float32) * scale
    by_content = query + tl.load(content_bias + head * DIM + d, mask=known, other=0.0).to(tl.float32)[None, :]
    by_position = query + tl.load(position_bias + head * DIM + d, mask=known, other=0.0).to(tl.float32)[None, :]
    by_content = by_content.to(projected.dtype.element_ty)
    by_position = by_position.to(projected.dtype.element_ty)
    column = local_n[None, :] - local_m[:, None] + (BLOCK_M - 1)

    peak = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    values = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    for start in range(0, length, BLOCK_N):
        n = start + local_n
        heard = n < length
        at = projected + heads * DIM + n[:, None] * stride + d[None, :]
        key = tl.load(at, mask=heard[:, None] & known[None, :], other=0.0)
        value = tl.load(at + heads * DIM, mask=heard[:, None] & known[None, :], other=0.0)
        # The distances from the block's last query to its first key, to that from its first query to its last key.
        r = start - first - (BLOCK_M - 1) + tl.arange(0, BLOCK_M + BLOCK_N) + distances // 2
        exists = ((r >= 0) & (r < distances))[:, None] & known[None, :]
        place = tl.load(table + r[:, None] * (heads * DIM) + d[None, :], mask=exists, other=0.0)
        by_distance = tl.dot(by_position, tl.trans(place), input_precision=PRECISION)
        scores = tl.dot(by_content, tl.trans(key), input_precision=PRECISION)
        scores += tl.gather(by_distance, column, axis=1)
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
