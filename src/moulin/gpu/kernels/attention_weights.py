"""Zipformer's attention: weights that are computed once and used by several modules.

As matrices of half precision the weights are a hundredth of what an encoder reads and writes, so they are stored rather
than computed again by each module. The score of a distance is a product of four numbers (`pos_head_dim`), which is
cheaper to compute for each pair of frames than to shift into place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.precision import dot_precision

KEY_BLOCK = 64


def attention_weights_plain(
    projected: Tensor, lengths: Tensor, table: Tensor, *, query_dim: int, key_at: int, position_at: int
) -> Tensor:
    """What `attention_weights` computes, for all pairs at once."""
    batch, frames, _ = projected.shape
    heads, pos_dim, distances = table.shape

    def split(start: int, dim: int) -> Tensor:
        piece = projected[..., start : start + heads * dim].float()
        return piece.reshape(batch, frames, heads, dim).transpose(1, 2)

    scores = split(0, query_dim) @ split(key_at, query_dim).transpose(2, 3)
    place = torch.arange(frames, device=table.device)
    by_pair = table.float()[:, :, place[None, :] - place[:, None] + distances // 2]  # [heads, pos_dim, T, T]
    scores += torch.einsum("bhtp,hpts->bhts", split(position_at, pos_dim), by_pair)
    beyond = place >= lengths[:, None]
    weights = scores.masked_fill(beyond[:, None, None], float("-inf")).softmax(dim=-1)
    out = torch.zeros(batch, heads, frames, _padded(frames), dtype=projected.dtype, device=projected.device)
    out[..., :frames] = weights.to(out.dtype)
    return out


def attention_weights(
    projected: Tensor, lengths: Tensor, table: Tensor, *, query_dim: int, key_at: int, position_at: int
) -> Tensor:
    """softmax(query key + position distance) over keys: [B, heads, T, T'], T' being T rounded up to KEY_BLOCK.

    `projected` [B, T, C] holds queries from column 0 on, keys from `key_at` and positional queries from `position_at`,
    each head by head. `table` [heads, pos_dim, 2 R - 1], R >= T, has the projected encodings of distances (key less
    query) from -(R - 1) on. `lengths` int32 [B]: what is at and beyond them gets no weight; columns from the next
    multiple of KEY_BLOCK on are not written at all.
    """
    batch, frames, _ = projected.shape
    heads, pos_dim, distances = table.shape
    width = _padded(frames)
    out = torch.empty(batch, heads, frames, width, dtype=projected.dtype, device=projected.device)
    block_m = 64 if frames > 32 else 32
    _attention_weights_kernel[(triton.cdiv(frames, block_m), heads, batch)](
        projected,
        lengths,
        table,
        out,
        frames,
        width,
        projected.stride(1),
        key_at,
        position_at,
        distances,
        query_dim,
        pos_dim,
        block_m,
        KEY_BLOCK,
        max(16, triton.next_power_of_2(query_dim)),
        dot_precision(projected.dtype),
        num_warps=4,
        num_stages=2,
    )
    return out


def _padded(frames: int) -> int:
    return triton.cdiv(frames, KEY_BLOCK) * KEY_BLOCK


@triton.jit
def _scores(
    query, keys, position, table, start, m, length, stride, distances,
    QUERY_DIM: tl.constexpr, POS_DIM: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of a block of queries and the keys from `start` on, float32, in units of log 2."""
    n = start + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    heard = n < length
    key = tl.load(keys + n[None, :] * stride + d[:, None], mask=heard[None, :] & (d < QUERY_DIM)[:, None], other=0.0)
    scores = tl.dot(query, key, input_precision=PRECISION)
    at = n[None, :] - m[:, None] + distances // 2
    possible = heard[None, :] & (m < length)[:, None]
    for i in tl.static_range(POS_DIM):
        part = tl.load(position + i + m * stride, mask=m < length, other=0.0).to(tl.float32)
        scores += part[:, None] * tl.load(table + i * distances + at, mask=possible, other=0.0).to(tl.float32)
    return tl.where(heard[None, :], scores * 1.4426950408889634, float("-inf"))


@triton.jit(do_not_specialize=["frames"])
def _attention_weights_kernel(
    projected,
    lengths,
    table,
    out,
    frames,
    width,
    stride,
    key_at,
    position_at,
    distances,
    QUERY_DIM: tl.constexpr,
    POS_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    heads = tl.num_programs(1)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    length = tl.load(lengths + row)
    projected += row * frames * stride
    inside = m < frames
    query = tl.load(
        projected + head * QUERY_DIM + m[:, None] * stride + d[None, :],
        mask=inside[:, None] & (d < QUERY_DIM)[None, :],
        other=0.0,
    )
    keys = projected + key_at + head * QUERY_DIM
    position = projected + position_at + head * POS_DIM
    table += head * POS_DIM * distances

    # Twice over the keys: once for the sums, once for the weights. Computing scores again costs less than storing them.
    peak = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(0, length, BLOCK_N):
        scores = _scores(
            query, keys, position, table, start, m, length, stride, distances,
            QUERY_DIM, POS_DIM, BLOCK_N, BLOCK_D, PRECISION,
        )  # fmt: skip
        higher = tl.maximum(peak, tl.max(scores, axis=1))
        total = total * tl.exp2(peak - higher) + tl.sum(tl.exp2(scores - higher[:, None]), axis=1)
        peak = higher
    share = 1.0 / total
    out += (row * heads + head) * frames * width
    for start in range(0, length, BLOCK_N):
        scores = _scores(
            query, keys, position, table, start, m, length, stride, distances,
            QUERY_DIM, POS_DIM, BLOCK_N, BLOCK_D, PRECISION,
        )  # fmt: skip
        weights = tl.exp2(scores - peak[:, None]) * share[:, None]
        n = start + tl.arange(0, BLOCK_N)
        tl.store(out + m[:, None].to(tl.int64) * width + n[None, :], weights.to(out.dtype.element_ty),
                 mask=inside[:, None])  # fmt: skip
