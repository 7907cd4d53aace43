"""The convolutions over time and frequency between features and encoder.

Channels are last here, [B, T, bands, channels], so that a product of matrices over channels is a convolution: one for
each of the kernel's nine points. The first convolution has one input channel and is cheaper to compute again for each
point of the second than to store.
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


@dataclass(frozen=True, slots=True)
class Subsampling:
    """Three 3 x 3 convolutions, each followed by `activation`: the first with `padding` (time, frequency), the second
    with stride 2, the third with `stride` in time and 2 in frequency.

    Made by `of`. Channels are padded to what tensor cores multiply; the padding's weights are zeros.
    """

    weight1: Tensor  # float32 [9, C1]
    bias1: Tensor
    weight2: Tensor  # [9, C1, C2]
    bias2: Tensor
    weight3: Tensor  # [9, C2, C3]
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
        first, second, third = (max(16, triton.next_power_of_2(count)) for count in channels)

        def taps(conv: nn.Conv2d, rows: int, columns: int) -> Tensor:
            weight = conv.weight.detach().float().permute(2, 3, 1, 0).flatten(0, 1)
            missing = (0, columns - weight.shape[2], 0, rows - weight.shape[1])
            return functional.pad(weight, missing).contiguous().to(device, dtype)

        def bias(conv: nn.Conv2d, columns: int) -> Tensor:
            assert conv.bias is not None
            return functional.pad(conv.bias.detach().float(), (0, columns - len(conv.bias))).to(device)

        weight1 = functional.pad(one.weight.detach().float().flatten(1).t(), (0, first - channels[0]))
        padding, stride = one.padding, three.stride
        assert isinstance(padding, tuple)
        return cls(
            weight1.contiguous().to(device),
            bias(one, first),
            taps(two, first, second),
            bias(two, second),
            taps(three, second, third),
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
    """What `subsampling` computes, utterance by utterance; frames beyond an utterance are zeros."""
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

    `lengths` int32 [B]: frames at and beyond them count as zeros, which is what padding is made of. Frames T' that an
    utterance does not reach are finite and mean nothing.
    """
    batch, frames, bands = x.shape
    (pad_t, pad_f), dtype = convs.padding, convs.weight3.dtype
    frames2, bands2 = (frames + 2 * pad_t - 5) // 2 + 1, (bands + 2 * pad_f - 5) // 2 + 1
    frames3, bands3 = convs.frames(frames), convs.bands(bands)
    between = torch.empty(batch, frames2, bands2, convs.channels[1], dtype=dtype, device=x.device)
    rows, block = batch * frames2 * bands2, 64
    _first_two_kernel[(triton.cdiv(rows, block),)](
        x,
        lengths,
        convs.weight1,
        convs.bias1,
        convs.weight2,
        convs.bias2,
        between,
        rows,
        frames,
        bands,
        frames2,
        bands2,
        convs.channels[1],
        pad_t,
        pad_f,
        convs.activation,
        block,
        convs.weight2.shape[1],
        convs.weight2.shape[2],
        dot_precision(dtype),
        num_warps=4,
    )
    out = torch.empty(batch, frames3, bands3, convs.channels[2], dtype=dtype, device=x.device)
    rows = batch * frames3 * bands3
    _third_kernel[(triton.cdiv(rows, block),)](
        between,
        convs.weight3,
        convs.bias3,
        out,
        rows,
        frames2,
        bands2,
        frames3,
        bands3,
        convs.channels[1],
        convs.channels[2],
        convs.stride,
        convs.activation,
        block,
        convs.weight3.shape[1],
        convs.weight3.shape[2],
        dot_precision(dtype),
        num_warps=4,
    )
    return out


@triton.jit(do_not_specialize=["rows", "frames", "frames2"])
def _first_two_kernel(
    x,
    lengths,
    weight1,
    bias1,
    weight2,
    bias2,
    out,
    rows,
    frames,
    bands,
    frames2,
    bands2,
    channels2,
    PAD_T: tl.constexpr,
    PAD_F: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    PRECISION: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < rows
    place = tl.where(inside, place, 0).to(tl.int64)
    f2 = place % bands2
    t2 = place // bands2 % frames2
    row = place // bands2 // frames2
    length = tl.minimum(tl.load(lengths + row), frames)
    x += row * frames * bands
    c1, c2 = tl.arange(0, C1), tl.arange(0, C2)
    total = tl.zeros((BLOCK, C2), dtype=tl.float32)
    for point in tl.static_range(9):
        # The first convolution at this point of the second one's window.
        t1 = 2 * t2 + point // 3 - PAD_T
        f1 = 2 * f2 + point % 3 - PAD_F
        first = tl.zeros((BLOCK, C1), dtype=tl.float32) + tl.load(bias1 + c1)[None, :]
        for i in tl.static_range(9):
            t, f = t1 + i // 3, f1 + i % 3
            heard = (t >= 0) & (t < length) & (f >= 0) & (f < bands)
            sample = tl.load(x + t * bands + f, mask=heard, other=0.0).to(tl.float32)
            first += sample[:, None] * tl.load(weight1 + i * C1 + c1)[None, :]
        first = activate(first, ACTIVATION).to(weight2.dtype.element_ty)
        weight = tl.load(weight2 + point * C1 * C2 + c1[:, None] * C2 + c2[None, :])
        total = tl.dot(first, weight, total, input_precision=PRECISION)
    y = activate(total + tl.load(bias2 + c2)[None, :], ACTIVATION)
    at = out + place[:, None] * channels2 + c2[None, :]
    tl.store(at, y.to(out.dtype.element_ty), mask=inside[:, None] & (c2 < channels2)[None, :])


@triton.jit(do_not_specialize=["rows", "frames2", "frames3"])
def _third_kernel(
    x,
    weight,
    bias,
    out,
    rows,
    frames2,
    bands2,
    frames3,
    bands3,
    channels2,
    channels3,
    STRIDE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
    C2: tl.constexpr,
    C3: tl.constexpr,
    PRECISION: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < rows
    place = tl.where(inside, place, 0).to(tl.int64)
    f3 = place % bands3
    t3 = place // bands3 % frames3
    row = place // bands3 // frames3
    c2, c3 = tl.arange(0, C2), tl.arange(0, C3)
    start = x + ((row * frames2 + t3 * STRIDE) * bands2 + 2 * f3) * channels2
    total = tl.zeros((BLOCK, C3), dtype=tl.float32)
    for point in tl.static_range(9):
        at = start + (point // 3 * bands2 + point % 3) * channels2
        seen = tl.load(at[:, None] + c2[None, :], mask=(c2 < channels2)[None, :], other=0.0)
        total = tl.dot(
            seen,
            tl.load(weight + point * C2 * C3 + c2[:, None] * C3 + c3[None, :]),
            total,
            input_precision=PRECISION,
        )
    y = activate(total + tl.load(bias + c3)[None, :], ACTIVATION)
    at = out + place[:, None] * channels3 + c3[None, :]
    tl.store(at, y.to(out.dtype.element_ty), mask=inside[:, None] & (c3 < channels3)[None, :])
