"""Operations on elements or rows between the encoders' matrix products.

Each kernel reads and writes its rows once. Rows may have any stride; the elements of a row must be contiguous.
Arithmetic is in float32 for any dtype of the tensors.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.activations import Activation, activate, plain_activation

_ELEMENTS = 4096  # elements processed by one program


def activate_plain(x: Tensor, activation: Activation) -> Tensor:
    return plain_activation(x.float(), activation).to(x.dtype)


def activate_(x: Tensor, activation: Activation) -> Tensor:
    """`activation` of x [M, N], in place."""
    rows, columns = x.shape
    block_n = min(triton.next_power_of_2(columns), 512)
    block_m = _ELEMENTS // block_n
    grid = (triton.cdiv(rows, block_m), triton.cdiv(columns, block_n))
    _activate_kernel[grid](x, rows, columns, x.stride(0), activation, block_m, block_n)
    return x


@triton.jit(do_not_specialize=["rows"])
def _activate_kernel(x, rows, columns, stride, ACTIVATION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    at = x + m.to(tl.int64)[:, None] * stride + n[None, :]
    y = activate(tl.load(at, mask=inside, other=0.0).to(tl.float32), ACTIVATION)
    tl.store(at, y.to(x.dtype.element_ty), mask=inside)


def gate_plain(x: Tensor) -> Tensor:
    values, gates = x.float().chunk(2, dim=-1)
    return (values * gates.sigmoid()).to(x.dtype)


def gate(x: Tensor) -> Tensor:
    """The gated linear unit of x [M, 2 N]: its first half times the sigmoid of the second, [M, N]."""
    rows, columns = x.shape[0], x.shape[1] // 2
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    block_n = min(triton.next_power_of_2(columns), 512)
    block_m = _ELEMENTS // block_n
    grid = (triton.cdiv(rows, block_m), triton.cdiv(columns, block_n))
    _gate_kernel[grid](x, out, rows, columns, x.stride(0), block_m, block_n)
    return out


@triton.jit(do_not_specialize=["rows"])
def _gate_kernel(x, out, rows, columns, stride, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    m = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    at = x + m[:, None] * stride + n[None, :]
    values = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    gates = tl.load(at + columns, mask=inside, other=0.0).to(tl.float32)
    y = values * tl.sigmoid(gates)
    tl.store(out + m[:, None] * columns + n[None, :], y.to(out.dtype.element_ty), mask=inside)


def bypass_plain(x: Tensor, shift: Tensor, before: Tensor, scale: Tensor) -> Tensor:
    was = before.float()
    return (was + (x.float() + shift.float() - was) * scale.float()).to(x.dtype)


def bypass(x: Tensor, shift: Tensor, before: Tensor, scale: Tensor) -> Tensor:
    """before + (x + shift - before) * scale, for x and `before` [M, N] and vectors [N]: a new [M, N]."""
    return _norm(x, shift, before, scale, None, 0.0, mean_square=False)


def bias_norm_bypass_plain(
    x: Tensor, shift: Tensor, bias: Tensor, gain: float, before: Tensor, scale: Tensor
) -> Tensor:
    y = x.float() + shift.float()
    y = y * (y - bias.float()).square().mean(dim=-1, keepdim=True).rsqrt() * gain
    was = before.float()
    return (was + (y - was) * scale.float()).to(x.dtype)


def bias_norm_bypass(x: Tensor, shift: Tensor, bias: Tensor, gain: float, before: Tensor, scale: Tensor) -> Tensor:
    """Zipformer2's BiasNorm of x + shift, with exp(log_scale) = `gain`, then `bypass`: a new [M, N]."""
    return _norm(x, shift, before, scale, bias, 0.0, gain=gain)


def bias_norm_plain(x: Tensor, bias: Tensor, gain: float) -> Tensor:
    y = x.float()
    return (y * (y - bias.float()).square().mean(dim=-1, keepdim=True).rsqrt() * gain).to(x.dtype)


def bias_norm(x: Tensor, bias: Tensor, gain: float) -> Tensor:
    """Zipformer2's BiasNorm of x [M, N]: a new [M, N]."""
    return _norm(x, None, None, None, bias, 0.0, gain=gain)


def basic_norm_plain(x: Tensor, shift: Tensor, epsilon: float) -> Tensor:
    y = x.float() + shift.float()
    return (y * (y.square().mean(dim=-1, keepdim=True) + epsilon).rsqrt()).to(x.dtype)


def basic_norm(x: Tensor, shift: Tensor, epsilon: float) -> Tensor:
    """BasicNorm of x + shift, with exp(eps) = `epsilon`: a new [M, N]."""
    return _norm(x, shift, None, None, None, epsilon)


def basic_norm_bypass_plain(x: Tensor, shift: Tensor, epsilon: float, before: Tensor, scale: Tensor) -> Tensor:
    return bypass_plain(basic_norm_plain(x.float(), shift, epsilon), torch.zeros_like(scale), before, scale).to(x.dtype)


def basic_norm_bypass(x: Tensor, shift: Tensor, epsilon: float, before: Tensor, scale: Tensor) -> Tensor:
    """BasicNorm of x + shift, then `bypass`: a new [M, N]."""
    return _norm(x, shift, before, scale, None, epsilon)


def _norm(
    x: Tensor,
    shift: Tensor | None,
    before: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
    *,
    gain: float = 1.0,
    mean_square: bool = True,
) -> Tensor:
    rows, columns = x.shape
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    block_n = triton.next_power_of_2(columns)
    block_m = max(1, 2048 // block_n)
    _norm_kernel[(triton.cdiv(rows, block_m),)](
        x,
        shift,
        before,
        scale,
        bias,
        out,
        rows,
        columns,
        x.stride(0),
        0 if before is None else before.stride(0),
        epsilon,
        gain,
        mean_square,
        block_m,
        block_n,
    )
    return out


@triton.jit(do_not_specialize=["rows", "epsilon", "gain"])
def _norm_kernel(
    x,
    shift,
    before,
    scale,
    bias,
    out,
    rows,
    columns,
    x_stride,
    before_stride,
    epsilon,
    gain,
    MEAN_SQUARE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    m = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    n = tl.arange(0, BLOCK_N)
    known = n < columns
    inside = (m[:, None] < rows) & known[None, :]
    y = tl.load(x + m[:, None] * x_stride + n[None, :], mask=inside, other=0.0).to(tl.float32)
    if shift is not None:
        y += tl.load(shift + n, mask=known, other=0.0).to(tl.float32)[None, :]
    if MEAN_SQUARE:
        centred = y
        if bias is not None:
            centred = y - tl.load(bias + n, mask=known, other=0.0).to(tl.float32)[None, :]
        mean = tl.sum(centred * centred, axis=1) / columns + epsilon
        # Rows beyond the end are zeros and not stored, but must not divide by zero.
        mean = tl.where(m < rows, mean, 1.0)
        y = y * (gain * tl.rsqrt(mean))[:, None]
    if before is not None:
        was = tl.load(before + m[:, None] * before_stride + n[None, :], mask=inside, other=0.0).to(tl.float32)
        y = was + (y - was) * tl.load(scale + n, mask=known, other=0.0).to(tl.float32)[None, :]
    tl.store(out + m[:, None] * columns + n[None, :], y.to(out.dtype.element_ty), mask=inside)
