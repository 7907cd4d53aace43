"""Depthwise convolutions over time, in which frames beyond an utterance count as zeros."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from moulin.gpu.kernels.activations import Activation, activate, plain_activation


@dataclass(frozen=True, slots=True)
class Depthwise:
    """A convolution with `weight` [K, D] and `bias` [D]; output t depends on frames t - left to t - left + K - 1.

    With `causal_weight` [K // 2 + 1, D], `causal_bias` [D] and `edges` [2, K, D] it is that of causal Zipformer2 models
    over whole utterances (`moulin.encoders.zipformer2.ChunkCausalConv1d`).
    """

    weight: Tensor
    bias: Tensor
    left: int
    causal_weight: Tensor | None = None
    causal_bias: Tensor | None = None
    edges: Tensor | None = None


def depthwise_plain(x: Tensor, lengths: Tensor, conv: Depthwise, activation: Activation) -> Tensor:
    """The plain twin of `depthwise`, utterance by utterance; frames beyond an utterance are zeros."""
    out = torch.zeros_like(x)
    kernel, dim = conv.weight.shape
    for row, length in enumerate(lengths.tolist()):
        frames = x[row, :length].float().t()[None]
        padded = functional.pad(frames, (conv.left, kernel - 1 - conv.left))
        y = functional.conv1d(padded, conv.weight.float().t()[:, None], conv.bias.float(), groups=dim)
        if conv.causal_weight is not None and conv.causal_bias is not None and conv.edges is not None:
            scale = torch.ones(dim, length, device=x.device)
            edge = min(kernel, length)
            scale[:, :edge] += conv.edges[0, :edge].float().t()
            scale[:, length - edge :] += conv.edges[1, kernel - edge :].float().t()
            padded = functional.pad(frames, (kernel // 2, 0))
            causal = functional.conv1d(
                padded, conv.causal_weight.float().t()[:, None], conv.causal_bias.float(), groups=dim
            )
            y = causal + y * scale
        out[row, :length] = plain_activation(y[0].t(), activation).to(x.dtype)
    return out


def depthwise(x: Tensor, lengths: Tensor, conv: Depthwise, activation: Activation) -> Tensor:
    """`activation` of the convolution of x [B, T, D], whose utterances are `lengths` int32 [B] frames long.

    Frames beyond an utterance count as zeros; the output there is finite and undefined.
    """
    batch, frames, dim = x.shape
    kernel = conv.weight.shape[0]
    out = torch.empty_like(x)
    block_d = min(64, triton.next_power_of_2(dim))
    block_t = 32
    _depthwise_kernel[(triton.cdiv(frames, block_t), triton.cdiv(dim, block_d), batch)](
        x,
        lengths,
        conv.weight,
        conv.bias,
        conv.causal_weight,
        conv.causal_bias,
        conv.edges,
        out,
        frames,
        dim,
        conv.left,
        kernel,
        activation,
        dim % block_d == 0,
        block_t,
        block_d,
        num_warps=8,
    )
    return out


@triton.jit(do_not_specialize=["frames"])
def _depthwise_kernel(
    x,
    lengths,
    weight,
    bias,
    causal_weight,
    causal_bias,
    edges,
    out,
    frames,
    dim,
    LEFT: tl.constexpr,
    KERNEL: tl.constexpr,
    ACTIVATION: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    known = d < dim
    length = tl.load(lengths + row)
    x += row * frames * dim
    first = tl.program_id(0) * BLOCK_T - LEFT
    if (first >= 0) & (first + BLOCK_T + KERNEL - 1 <= length):
        total, past = _taps(x, weight, causal_weight, t, d, length, dim, LEFT, KERNEL, EVEN_D, False)
    else:
        total, past = _taps(x, weight, causal_weight, t, d, length, dim, LEFT, KERNEL, EVEN_D, True)
    total += tl.load(bias + d, mask=known, other=0.0).to(tl.float32)[None, :]
    if causal_weight is not None:
        from_end = KERNEL - (length - t)  # row of the scales for the last frames
        first = (t < KERNEL)[:, None] & known[None, :]
        last = ((from_end >= 0) & (from_end < KERNEL))[:, None] & known[None, :]
        scale = 1.0 + tl.load(edges + t[:, None] * dim + d[None, :], mask=first, other=0.0).to(tl.float32)
        at_end = edges + (KERNEL + from_end)[:, None] * dim + d[None, :]
        scale += tl.load(at_end, mask=last, other=0.0).to(tl.float32)
        total = past + tl.load(causal_bias + d, mask=known, other=0.0).to(tl.float32)[None, :] + total * scale
    inside = (t < frames)[:, None] & known[None, :]
    y = activate(total, ACTIVATION).to(out.dtype.element_ty)
    tl.store(out + (row * frames + t)[:, None] * dim + d[None, :], y, mask=inside)


@triton.constexpr_function
def part_type(dtype):
    """The type in which a few products are summed before they are added to a float32 sum: float16 for float16, which
    saves a conversion of each; bfloat16 would lose too much precision."""
    return tl.float16 if dtype == tl.float16 else tl.float32


@triton.jit
def _taps(
    x, weight, causal_weight, t, d, length, dim,
    LEFT: tl.constexpr, KERNEL: tl.constexpr, EVEN_D: tl.constexpr, AT_EDGE: tl.constexpr,
):  # fmt: skip
    """The sums of a block's frames with `weight` and `causal_weight`. Only blocks AT_EDGE check bounds."""
    known = (d < dim)[None, :]
    total = tl.zeros((t.shape[0], d.shape[0]), dtype=tl.float32)
    past = tl.zeros((t.shape[0], d.shape[0]), dtype=tl.float32)
    some = tl.zeros((t.shape[0], d.shape[0]), dtype=part_type(x.dtype.element_ty))
    for k in tl.static_range(KERNEL):
        seen = t + (k - LEFT)
        at = x + seen[:, None] * dim + d[None, :]
        if AT_EDGE:
            frame = tl.load(at, mask=((seen >= 0) & (seen < length))[:, None] & known, other=0.0)
        elif EVEN_D:
            frame = tl.load(at)
        else:
            frame = tl.load(at, mask=known, other=0.0)
        factor = tl.load(weight + k * dim + d, mask=d < dim, other=0.0)
        some += frame.to(some.dtype) * factor.to(some.dtype)[None, :]
        if k % 8 == 7 or k == KERNEL - 1:
            total += some.to(tl.float32)
            some = tl.zeros_like(some)
        if causal_weight is not None and k <= KERNEL // 2:
            factor = tl.load(causal_weight + k * dim + d, mask=d < dim, other=0.0)
            past += frame.to(tl.float32) * factor.to(tl.float32)[None, :]
    return total, past
