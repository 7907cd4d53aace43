"""Downsampling and upsampling of frames around Zipformer's stacks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK_T = 16


def downsample_plain(x: Tensor, lengths: Tensor, weights: Tensor, channels: int) -> Tensor:
    """The plain twin of `downsample`, utterance by utterance; frames beyond an utterance are zeros."""
    batch, frames, dim = x.shape
    factor = len(weights)
    out = torch.zeros(batch, -(-frames // factor), channels, dtype=x.dtype, device=x.device)
    for row, length in enumerate(lengths.tolist()):
        groups = -(-length // factor)
        seen = torch.arange(groups * factor).clamp(max=length - 1)
        mean = (x[row, seen].float().reshape(groups, factor, dim) * weights.float()[:, None]).sum(dim=1)
        out[row, :groups, : min(dim, channels)] = mean[:, :channels].to(x.dtype)
    return out


def downsample(x: Tensor, lengths: Tensor, weights: Tensor, channels: int) -> Tensor:
    """The mean of every `factor` frames of x [B, T, D] with `weights` [factor]: [B, ceil(T / factor), channels].

    Channels that x lacks are zeros. Copies of an utterance's last frame complete its last group; `lengths` int32 [B]
    are in frames of x.
    """
    batch, frames, dim = x.shape
    factor = len(weights)
    out_frames = triton.cdiv(frames, factor)
    out = torch.empty(batch, out_frames, channels, dtype=x.dtype, device=x.device)
    block_d = min(128, triton.next_power_of_2(channels))
    grid = (triton.cdiv(out_frames, _BLOCK_T), triton.cdiv(channels, block_d), batch)
    _downsample_kernel[grid](
        x, lengths, weights, out, frames, out_frames, dim, channels, x.stride(1), factor, _BLOCK_T, block_d
    )
    return out


@triton.jit(do_not_specialize=["frames", "out_frames"])
def _downsample_kernel(
    x,
    lengths,
    weights,
    out,
    frames,
    out_frames,
    dim,
    channels,
    x_stride,
    FACTOR: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    last = tl.maximum(tl.load(lengths + row) - 1, 0)
    x += row * frames * x_stride
    total = tl.zeros((BLOCK_T, BLOCK_D), dtype=tl.float32)
    for i in tl.static_range(FACTOR):
        seen = tl.minimum(t * FACTOR + i, last)
        frame = tl.load(x + seen[:, None] * x_stride + d[None, :], mask=(d < dim)[None, :], other=0.0)
        total += frame.to(tl.float32) * tl.load(weights + i).to(tl.float32)
    inside = (t < out_frames)[:, None] & (d < channels)[None, :]
    at = out + (row * out_frames + t)[:, None] * channels + d[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=inside)


def upsample_bypass_plain(
    before: Tensor, after: Tensor, factor: int, scale: Tensor, shift: Tensor | None = None
) -> Tensor:
    batch, frames, _ = before.shape
    channels = after.shape[2]
    was = before[..., :channels].float()
    was = torch.nn.functional.pad(was, (0, channels - was.shape[2]))
    if shift is None:
        shift = torch.zeros(factor, channels, device=after.device)
    repeated = (after.float()[:, :, None] + shift.float()).reshape(batch, -1, channels)[:, :frames]
    return (was + (repeated - was) * scale.float()).to(before.dtype)


def upsample_bypass(before: Tensor, after: Tensor, factor: int, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    """before + (repeated - before) * scale [D], where `repeated` is every frame of `after` [B, ceil(T / factor), D]
    `factor` times, plus `shift` [factor, D]: [B, T, D].

    `before` [B, T, any] is truncated, or padded with zeros, to D channels.
    """
    batch, frames, dim = before.shape
    channels = after.shape[2]
    out = torch.empty(batch, frames, channels, dtype=before.dtype, device=before.device)
    block_d = min(128, triton.next_power_of_2(channels))
    grid = (triton.cdiv(frames, _BLOCK_T), triton.cdiv(channels, block_d), batch)
    _upsample_bypass_kernel[grid](
        before,
        after,
        scale,
        shift,
        out,
        frames,
        after.shape[1],
        dim,
        channels,
        before.stride(1),
        factor,
        _BLOCK_T,
        block_d,
    )
    return out


@triton.jit(do_not_specialize=["frames", "after_frames"])
def _upsample_bypass_kernel(
    before,
    after,
    scale,
    shift,
    out,
    frames,
    after_frames,
    dim,
    channels,
    before_stride,
    FACTOR: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    known = d < channels
    inside = (t < frames)[:, None] & known[None, :]
    has = (t < frames)[:, None] & (d < dim)[None, :] & known[None, :]
    was = tl.load(before + (row * frames + t)[:, None] * before_stride + d[None, :], mask=has, other=0.0)
    was = was.to(tl.float32)
    at = after + (row * after_frames + t // FACTOR)[:, None] * channels + d[None, :]
    now = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    if shift is not None:
        place = shift + (t % FACTOR)[:, None] * channels + d[None, :]
        now += tl.load(place, mask=inside, other=0.0).to(tl.float32)
    now = was + (now - was) * tl.load(scale + d, mask=known, other=0.0).to(tl.float32)[None, :]
    tl.store(out + (row * frames + t)[:, None] * channels + d[None, :], now.to(out.dtype.element_ty), mask=inside)


def attentive_downsample_plain(x: Tensor, lengths: Tensor, query: Tensor, factor: int, channels: int) -> Tensor:
    """The plain twin of `attentive_downsample`, utterance by utterance; frames beyond an utterance are zeros."""
    batch, frames, dim = x.shape
    out = torch.zeros(batch, -(-frames // factor), channels, dtype=x.dtype, device=x.device)
    for row, length in enumerate(lengths.tolist()):
        groups = -(-length // factor)
        seen = torch.arange(groups * factor).clamp(max=length - 1)
        grouped = x[row, seen].float().reshape(groups, factor, dim)
        weights = (grouped * query.float()).sum(dim=2, keepdim=True).softmax(dim=1)
        out[row, :groups, :dim] = (grouped * weights).sum(dim=1).to(x.dtype)
    return out


def attentive_downsample(x: Tensor, lengths: Tensor, query: Tensor, factor: int, channels: int) -> Tensor:
    """The mean of every `factor` frames of x [B, T, D], weighted with the softmax of their products with `query` [D]:
    [B, ceil(T / factor), channels], of which only the first D channels are written.

    Copies of an utterance's last frame complete its last group; `lengths` int32 [B] are in frames of x.
    """
    batch, frames, dim = x.shape
    out_frames = triton.cdiv(frames, factor)
    out = torch.empty(batch, out_frames, channels, dtype=x.dtype, device=x.device)
    block_d = triton.next_power_of_2(dim)
    block_t = max(1, 4096 // block_d)
    _attentive_downsample_kernel[(triton.cdiv(out_frames, block_t), batch)](
        x, lengths, query, out, frames, out_frames, dim, channels, factor, block_t, block_d
    )
    return out


@triton.jit(do_not_specialize=["frames", "out_frames"])
def _attentive_downsample_kernel(
    x,
    lengths,
    query,
    out,
    frames,
    out_frames,
    dim,
    channels,
    FACTOR: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    known = d < dim
    last = tl.maximum(tl.load(lengths + row) - 1, 0)
    x += row * frames * dim
    asked = tl.load(query + d, mask=known, other=0.0).to(tl.float32)
    peak = tl.full((BLOCK_T,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((BLOCK_T,), dtype=tl.float32)
    total = tl.zeros((BLOCK_T, BLOCK_D), dtype=tl.float32)
    for i in tl.static_range(FACTOR):
        seen = tl.minimum(t * FACTOR + i, last)
        frame = tl.load(x + seen[:, None] * dim + d[None, :], mask=known[None, :], other=0.0).to(tl.float32)
        score = tl.sum(frame * asked[None, :], axis=1)
        higher = tl.maximum(peak, score)
        keep, share = tl.exp(peak - higher), tl.exp(score - higher)
        total = total * keep[:, None] + frame * share[:, None]
        weight = weight * keep + share
        peak = higher
    inside = (t < out_frames)[:, None] & known[None, :]
    at = out + (row * out_frames + t)[:, None] * channels + d[None, :]
    tl.store(at, (total / weight[:, None]).to(out.dtype.element_ty), mask=inside)
