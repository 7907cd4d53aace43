"""Zipformer's attention weights, computed once and used by several modules.

In half precision the weights are a hundredth of an encoder's memory traffic, so they are stored instead of recomputed
by each module. The score of a distance is a dot product of four numbers, in few models of more (`pos_head_dim`), which
is cheaper to compute for each pair of frames than to shift into place.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from moulin.gpu.kernels.precision import dot_precision

KEY_BLOCK = 64


class AttentionWeights(NamedTuple):
    """Weights in blocks of KEY_BLOCK keys: block b of `blocks` [B, heads, T, T'] times `scales[:, :, b]`, float32
    [B, heads, T' / KEY_BLOCK, T]. T' is T rounded up; blocks entirely beyond an utterance are not written.
    """

    blocks: Tensor
    scales: Tensor

    def matrix(self, lengths: Tensor) -> Tensor:
        """float32 [B, heads, T, T]: zero for keys at and beyond `lengths`."""
        frames = self.blocks.shape[2]
        weights = self.blocks.float() * self.scales.repeat_interleave(KEY_BLOCK, dim=2).transpose(2, 3)
        heard = torch.arange(frames, device=lengths.device) < lengths[:, None]
        return weights[..., :frames].where(heard[:, None, None], 0.0)


def attention_weights_plain(
    projected: Tensor, lengths: Tensor, table: Tensor, *, query_dim: int, key_at: int, position_at: int
) -> Tensor:
    """The plain twin of `attention_weights`: its `AttentionWeights.matrix`, for all pairs at once."""
    batch, frames, _ = projected.shape
    heads, distances, pos_dim = table.shape

    def split(start: int, dim: int) -> Tensor:
        piece = projected[..., start : start + heads * dim].float()
        return piece.reshape(batch, frames, heads, dim).transpose(1, 2)

    scores = split(0, query_dim) @ split(key_at, query_dim).transpose(2, 3)
    place = torch.arange(frames, device=table.device)
    by_pair = table.float()[:, place[None, :] - place[:, None] + distances // 2]  # [heads, T, T, pos_dim]
    scores += torch.einsum("bhtp,htsp->bhts", split(position_at, pos_dim), by_pair)
    beyond = place >= lengths[:, None]
    return scores.masked_fill(beyond[:, None, None], float("-inf")).softmax(dim=-1)


def distance_table(distances: Tensor) -> Tensor:
    """Projected encodings [heads, 2 R - 1, pos_dim] prepared for `attention_weights`: the last axis is padded to a
    power of two, so that a distance is one vector load."""
    pos_dim = distances.shape[2]
    return functional.pad(distances, (0, triton.next_power_of_2(pos_dim) - pos_dim)).contiguous()


def attention_weights(
    projected: Tensor, lengths: Tensor, table: Tensor, *, query_dim: int, key_at: int, position_at: int, pos_dim: int
) -> AttentionWeights:
    """softmax(query · key + positional query · distance) over keys.

    `projected` [B, T, C] holds queries from column 0 on, keys from `key_at` and positional queries from `position_at`,
    each head by head. `table` of `distance_table` has the encodings of distances (key minus query) from -(R - 1) on,
    R >= T. Keys at and beyond `lengths` int32 [B] have zero weight.
    """
    batch, frames, _ = projected.shape
    heads, distances, padded_pos_dim = table.shape
    blocks = triton.cdiv(frames, KEY_BLOCK)
    out = torch.empty(batch, heads, frames, blocks * KEY_BLOCK, dtype=projected.dtype, device=projected.device)
    scales = torch.empty(batch, heads, blocks, frames, dtype=torch.float32, device=projected.device)
    block_m = 32
    _attention_weights_kernel[(triton.cdiv(frames, block_m), heads, batch)](
        projected,
        lengths,
        table,
        out,
        scales,
        frames,
        blocks * KEY_BLOCK,
        projected.stride(1),
        key_at,
        position_at,
        distances,
        query_dim,
        pos_dim,
        block_m,
        KEY_BLOCK,
        max(16, triton.next_power_of_2(query_dim)),
        padded_pos_dim,
        dot_precision(projected.dtype),
        num_warps=4,
        num_stages=2,
    )
    return AttentionWeights(out, scales)


@triton.jit(do_not_specialize=["frames", "distances"])
def _attention_weights_kernel(
    projected,
    lengths,
    table,
    out,
    scales,
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
    BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    heads = tl.num_programs(1)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d, p = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_P)
    length = tl.load(lengths + row)
    projected += row * frames * stride
    exists = m < frames
    query = tl.load(
        projected + head * QUERY_DIM + m[:, None] * stride + d[None, :],
        mask=exists[:, None] & (d < QUERY_DIM)[None, :],
        other=0.0,
    )
    position = tl.load(
        projected + position_at + head * POS_DIM + m[:, None] * stride + p[None, :],
        mask=exists[:, None] & (p < POS_DIM)[None, :],
        other=0.0,
    ).to(tl.float32)
    keys = projected + key_at + head * QUERY_DIM
    # The row of `table` for the distance from each query to key 0; queries beyond the last frame use its row.
    places = table + (head * distances + distances // 2 - tl.minimum(m, frames - 1)) * BLOCK_P
    out += (row * heads + head) * frames * width
    blocks = width // BLOCK_N
    scales += (row * heads + head) * blocks * frames

    peak = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(0, length, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        heard = n < length
        known = heard[None, :] & (d < QUERY_DIM)[:, None]
        key = tl.load(keys + n[None, :] * stride + d[:, None], mask=known, other=0.0)
        scores = tl.dot(query, key, input_precision=PRECISION)
        seen = tl.minimum(n, length - 1)
        place = tl.load(places[:, None, None] + (seen * BLOCK_P)[None, :, None] + p[None, None, :])
        scores += tl.sum(place.to(tl.float32) * position[:, None, :], axis=2)
        scores = tl.where(heard[None, :], scores * 1.4426950408889634, float("-inf"))

        higher = tl.maximum(peak, tl.max(scores, axis=1))
        weights = tl.exp2(scores - higher[:, None])
        total = total * tl.exp2(peak - higher) + tl.sum(weights, axis=1)
        peak = higher
        at = out + m[:, None].to(tl.int64) * width + n[None, :]
        tl.store(at, weights.to(out.dtype.element_ty), mask=exists[:, None])
        tl.store(scales + start // BLOCK_N * frames + m, peak, mask=exists)
    # Each block's weights are relative to the highest score so far; `scales` makes up for it.
    tl.debug_barrier()
    for start in range(0, length, BLOCK_N):
        at = scales + start // BLOCK_N * frames + m
        tl.store(at, tl.exp2(tl.load(at, mask=exists, other=0.0) - peak) / total, mask=exists)
