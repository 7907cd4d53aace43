"""Convolutional subsampling: the convolutions over time and frequency before the encoder.

Channels are last, [B, T, bands, channels], so that three neighbouring bands are one vector, and a convolution is the
sum of three matrix products, one for each row of its kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional

from moulin.gpu.kernels.activations import Activation, activate, plain_activation
from moulin.gpu.kernels.precision import dot_precision
from moulin.gpu.shared_parameters import shared


@dataclass(frozen=True, slots=True)
class Subsampling:
    """Three 3 x 3 convolutions, each followed by `activation`: the first with `padding` (time, frequency), the second
    with stride 2, the third with `stride` in time and 2 in frequency.

    Created by `of`. Channels are padded with zero weights to sizes that tensor cores multiply.
    """

    weight1: Tensor  # float32 [9, C1]
    bias1: Tensor
    weight2: Tensor  # [3, 3 C1, C2], with only the last two axes padded
    bias2: Tensor
    weight3: Tensor  # [3, 3 C2, C3]
    bias3: Tensor
    channels: tuple[int, int, int]  # without the padding
    padding: tuple[int, int]
    stride: int
    activation: Activation
    modules: tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]

    @classmethod
    def of(
        cls,
        one: nn.Conv2d,
        two: nn.Conv2d,
        three: nn.Conv2d,
        activation: Activation,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Subsampling:
        channels = one.out_channels, two.out_channels, three.out_channels
        first = triton.next_power_of_2(channels[0])
        second, third = (max(16, triton.next_power_of_2(count)) for count in channels[1:])

        def by_row(conv: nn.Conv2d, columns: int) -> Tensor:
            weight = conv.weight.detach().float().permute(2, 3, 1, 0).flatten(1, 2)  # [3, 3 in, out]
            rows = max(16, triton.next_power_of_2(weight.shape[1]))
            missing = (0, columns - weight.shape[2], 0, rows - weight.shape[1])
            return shared(functional.pad(weight, missing).contiguous(), device, dtype)

        def bias(conv: nn.Conv2d, columns: int) -> Tensor:
            assert conv.bias is not None
            padded = functional.pad(conv.bias.detach().float(), (0, columns - len(conv.bias)))
            return shared(padded, device, torch.float32)

        weight1 = functional.pad(one.weight.detach().float().flatten(1).t(), (0, first - channels[0]))
        padding, stride = one.padding, three.stride
        assert isinstance(padding, tuple)
        return cls(
            shared(weight1.contiguous(), device, torch.float32),
            bias(one, first),
            by_row(two, second),
            bias(two, second),
            by_row(three, third),
            bias(three, third),
            channels,
            (padding[0], padding[1]),
            stride[0],
            activation,
            (one, two, three),
        )

    def frames(self, frames: int) -> int:
        """Output frames of `frames` input frames."""
        return ((frames + 2 * self.padding[0] - 2 - 3) // 2 + 1 - 3) // self.stride + 1

    def bands(self, bands: int) -> int:
        return ((bands + 2 * self.padding[1] - 2 - 3) // 2 + 1 - 3) // 2 + 1


def subsampling_plain(x: Tensor, lengths: Tensor, convs: Subsampling) -> Tensor:
    """The plain twin of `subsampling`, utterance by utterance; frames beyond an utterance are zeros."""
    bands, channels = convs.bands(x.shape[2]), convs.channels[2]
    out = torch.zeros(len(x), convs.frames(x.shape[1]), bands, channels, dtype=convs.weight3.dtype, device=x.device)
    for row, length in enumerate(lengths.tolist()):
        y = x[row, None, None, :length].float()
        for conv in convs.modules:
            y = functional.conv2d(
                y, conv.weight.float(), None if conv.bias is None else conv.bias.float(), conv.stride, conv.padding
            )
            y = plain_activation(y, convs.activation)
        out[row, : y.shape[2]] = y[0].permute(1, 2, 0).to(out.dtype)
    return out


def subsampling(x: Tensor, lengths: Tensor, convs: Subsampling) -> Tensor:
    """Features float32 [B, T, F] to [B, T', F', C3] in the weights' dtype.

    Frames at and beyond `lengths` int32 [B] count as zeros, like the convolutions' padding. Output frames beyond an
    utterance are finite and undefined.
    """
    batch, frames, bands = x.shape
    (pad_t, pad_f), (one, two, three), dtype = convs.padding, convs.channels, convs.weight3.dtype
    frames1, bands1 = frames + 2 * pad_t - 2, bands + 2 * pad_f - 2
    first = torch.empty(batch, frames1, bands1, one, dtype=dtype, device=x.device)
    rows, block = batch * frames1 * bands1, 256
    _first_kernel[(triton.cdiv(rows, block),)](
        x,
        lengths,
        convs.weight1,
        convs.bias1,
        first,
        rows,
        frames,
        bands,
        frames1,
        bands1,
        one,
        pad_t,
        pad_f,
        convs.activation,
        block,
        convs.weight1.shape[1],
        num_warps=4,
    )
    second = _convolve(first, convs.weight2, convs.bias2, two, 2, convs.activation)
    return _convolve(second, convs.weight3, convs.bias3, three, convs.stride, convs.activation)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, channels: int, stride: int, activation: Activation) -> Tensor:
    """A convolution without padding, with stride 2 over bands."""
    batch, frames, bands, in_channels = x.shape
    out_frames, out_bands = (frames - 3) // stride + 1, (bands - 3) // 2 + 1
    out = torch.empty(batch, out_frames, out_bands, channels, dtype=x.dtype, device=x.device)
    rows, block = batch * out_frames * out_bands, 64
    _convolve_kernel[(triton.cdiv(rows, block),)](
        x,
        weight,
        bias,
        out,
        rows,
        frames,
        bands,
        out_frames,
        out_bands,
        in_channels,
        channels,
        stride,
        activation,
        block,
        weight.shape[1],
        weight.shape[2],
        dot_precision(x.dtype),
        num_warps=4,
    )
    return out


@triton.jit(do_not_specialize=["rows", "frames", "frames1"])
def _first_kernel(
    x,
    lengths,
    weight,
    bias,
    out,
    rows,
    frames,
    bands,
    frames1,
    bands1,
    channels,
    PAD_T: tl.constexpr,
    PAD_F: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < rows
    place = tl.where(inside, place, 0)
    f = place % bands1 - PAD_F
    t = place // bands1 % frames1 - PAD_T
    row = place // bands1 // frames1
    length = tl.minimum(tl.load(lengths + row), frames)
    start = x + row.to(tl.int64) * frames * bands + t * bands + f
    c = tl.arange(0, C)
    total = tl.zeros((BLOCK, C), dtype=tl.float32) + tl.load(bias + c)[None, :]
    for i in tl.static_range(9):
        dt, df = i // 3, i % 3
        heard = (t + dt >= 0) & (t + dt < length) & (f + df >= 0) & (f + df < bands)
        sample = tl.load(start + dt * bands + df, mask=heard, other=0.0).to(tl.float32)
        total += sample[:, None] * tl.load(weight + i * C + c)[None, :]
    y = activate(total, ACTIVATION).to(out.dtype.element_ty)
    at = out + place[:, None].to(tl.int64) * channels + c[None, :]
    tl.store(at, y, mask=inside[:, None] & (c < channels)[None, :])


@triton.jit(do_not_specialize=["rows", "frames", "out_frames"])
def _convolve_kernel(
    x,
    weight,
    bias,
    out,
    rows,
    frames,
    bands,
    out_frames,
    out_bands,
    in_channels,
    channels,
    STRIDE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
    INNER: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < rows
    place = tl.where(inside, place, 0)
    f = place % out_bands
    t = place // out_bands % out_frames
    row = (place // out_bands // out_frames).to(tl.int64)
    k, c = tl.arange(0, INNER), tl.arange(0, C)
    start = x + ((row * frames + t * STRIDE) * bands + 2 * f) * in_channels
    total = tl.zeros((BLOCK, C), dtype=tl.float32)
    for i in tl.static_range(3):
        # Three neighbouring bands with all their channels.
        at = (start + i * bands * in_channels)[:, None] + k[None, :]
        seen = tl.load(at, mask=(k < 3 * in_channels)[None, :], other=0.0)
        kernel = tl.load(weight + (i * INNER + k[:, None]) * C + c[None, :])
        total = tl.dot(seen, kernel, total, input_precision=PRECISION)
    y = activate(total + tl.load(bias + c)[None, :], ACTIVATION).to(out.dtype.element_ty)
    at = out + place[:, None].to(tl.int64) * channels + c[None, :]
    tl.store(at, y, mask=inside[:, None] & (c < channels)[None, :])
