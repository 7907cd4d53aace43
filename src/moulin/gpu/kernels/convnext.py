"""Zipformer2's ConvNeXt in two kernels: the depthwise 7x7 convolution; the two pointwise layers and the residual sum.

The hidden layer, three times as wide as the input, stays on the multiprocessor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from moulin.encoders.zipformer2 import CONVNEXT_PADDING, ConvNeXt
from moulin.gpu.kernels.activations import activate
from moulin.gpu.kernels.depthwise import part_type
from moulin.gpu.kernels.precision import dot_precision
from moulin.gpu.shared_parameters import shared

_KERNEL = 2 * CONVNEXT_PADDING + 1

PLACES_PER_PROGRAM = 32
"""A place is a band of a frame."""


@dataclass(frozen=True, slots=True)
class ConvNeXtWeights:
    """The module's weights; channels are padded to powers of two with zeros."""

    depthwise: Tensor  # [49, C]
    depthwise_bias: Tensor  # float32 [C]
    weight1: Tensor  # [C, H]
    bias1: Tensor
    weight2: Tensor  # [H, C]
    bias2: Tensor
    module: ConvNeXt

    @classmethod
    def of(cls, module: ConvNeXt, device: torch.device, dtype: torch.dtype) -> ConvNeXtWeights:
        channels, hidden = module.depthwise_conv.out_channels, module.pointwise_conv1.out_channels
        wide, wider = max(16, triton.next_power_of_2(channels)), -(-hidden // 64) * 64

        def padded(weight: Tensor, *sizes: int, to: torch.dtype = torch.float32) -> Tensor:
            weight = weight.detach().float()
            missing = [amount for size, have in zip(sizes, weight.shape, strict=True) for amount in (size - have, 0)]
            return shared(functional.pad(weight, missing[::-1]).contiguous(), device, to)

        biases = (module.depthwise_conv.bias, module.pointwise_conv1.bias, module.pointwise_conv2.bias)
        first, second, third = (bias for bias in biases if bias is not None)
        depthwise = module.depthwise_conv.weight.flatten(1).t()
        return cls(
            padded(depthwise, depthwise.shape[0], wide, to=dtype),
            padded(first, wide),
            padded(module.pointwise_conv1.weight[:, :, 0, 0].t(), wide, wider, to=dtype),
            padded(second, wider),
            padded(module.pointwise_conv2.weight[:, :, 0, 0].t(), wider, wide, to=dtype),
            padded(third, wide),
            module,
        )


def convnext_plain(x: Tensor, lengths: Tensor, weights: ConvNeXtWeights) -> Tensor:
    """The plain twin of `convnext`, utterance by utterance; frames beyond an utterance are zeros."""
    out = torch.zeros_like(x)
    for row, length in enumerate(lengths.tolist()):
        y, _ = weights.module(x[row, None, :length].permute(0, 3, 1, 2).float(), None)
        out[row, :length] = y[0].permute(1, 2, 0).to(x.dtype)
    return out


def convnext(x: Tensor, lengths: Tensor, weights: ConvNeXtWeights) -> Tensor:
    """x [B, T, bands, C] to the same shape; frames at and beyond `lengths` int32 [B] count as zeros."""
    batch, frames, bands, channels = x.shape
    around, out = torch.empty_like(x), torch.empty_like(x)
    rows = batch * frames * bands
    wide, hidden = weights.weight1.shape
    block, block_c = PLACES_PER_PROGRAM, min(wide, 64)
    _neighbourhood_kernel[(triton.cdiv(rows, block), wide // block_c)](
        x,
        lengths,
        weights.depthwise,
        weights.depthwise_bias,
        around,
        rows,
        frames,
        bands,
        channels,
        _KERNEL,
        block,
        block_c,
        wide,
        wide == channels,
        num_warps=4,
    )
    block = 64
    _layers_kernel[(triton.cdiv(rows, block),)](
        x,
        around,
        weights.weight1,
        weights.bias1,
        weights.weight2,
        weights.bias2,
        out,
        rows,
        channels,
        block,
        wide,
        hidden,
        64,
        dot_precision(x.dtype),
        num_warps=4,
        num_stages=2,
    )
    return out


@triton.jit(do_not_specialize=["rows", "frames"])
def _neighbourhood_kernel(
    x,
    lengths,
    depthwise,
    depthwise_bias,
    out,
    rows,
    frames,
    bands,
    channels,
    KERNEL: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    C: tl.constexpr,
    EVEN_C: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < rows
    place = tl.where(inside, place, 0)
    f = place % bands
    t = place // bands % frames
    length = tl.load(lengths + place // bands // frames)
    place = place.to(tl.int64)
    centre = x + place * channels
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = c < channels
    around = tl.zeros((BLOCK, BLOCK_C), dtype=tl.float32)
    for row in range(KERNEL):
        dt = row - KERNEL // 2
        heard_row = (t + dt >= 0) & (t + dt < length)
        some = tl.zeros((BLOCK, BLOCK_C), dtype=part_type(x.dtype.element_ty))
        for column in tl.static_range(KERNEL):
            df = column - KERNEL // 2
            heard = heard_row & (f + df >= 0) & (f + df < bands)
            at = (centre + (dt * bands + df) * channels)[:, None] + c[None, :]
            if EVEN_C:
                seen = tl.load(at, mask=heard[:, None], other=0.0)
            else:
                seen = tl.load(at, mask=heard[:, None] & known[None, :], other=0.0)
            factor = tl.load(depthwise + (row * KERNEL + column) * C + c)
            some += seen.to(some.dtype) * factor.to(some.dtype)[None, :]
        around += some.to(tl.float32)
    around += tl.load(depthwise_bias + c)[None, :]
    at = out + place[:, None] * channels + c[None, :]
    tl.store(at, around.to(out.dtype.element_ty), mask=inside[:, None] & known[None, :])


@triton.jit(do_not_specialize=["rows"])
def _layers_kernel(
    x,
    around,
    weight1,
    bias1,
    weight2,
    bias2,
    out,
    rows,
    channels,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
    HIDDEN: tl.constexpr,
    BLOCK_H: tl.constexpr,
    PRECISION: tl.constexpr,
):
    place = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    c = tl.arange(0, C)
    inside = (place < rows)[:, None] & (c < channels)[None, :]
    at = place[:, None] * channels + c[None, :]
    near = tl.load(around + at, mask=inside, other=0.0)
    total = tl.zeros((BLOCK, C), dtype=tl.float32) + tl.load(bias2 + c)[None, :]
    for start in range(0, HIDDEN, BLOCK_H):
        h = start + tl.arange(0, BLOCK_H)
        up = tl.load(weight1 + c[:, None] * HIDDEN + h[None, :])
        hidden = tl.dot(near, up, input_precision=PRECISION) + tl.load(bias1 + h)[None, :]
        hidden = activate(hidden, "swoosh_l").to(x.dtype.element_ty)
        down = tl.load(weight2 + h[:, None] * C + c[None, :])
        total = tl.dot(hidden, down, total, input_precision=PRECISION)
    total += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)
