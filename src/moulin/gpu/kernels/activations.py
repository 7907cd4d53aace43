"""The encoders' activations in Triton-lang; `moulin.encoders.activations` has them in PyTorch."""

from __future__ import annotations

from typing import Literal

import triton
import triton.language as tl
from torch import Tensor, nn

from moulin.encoders.activations import DoubleSwish, SwooshL, SwooshR

Activation = Literal["none", "double_swish", "swoosh_l", "swoosh_r"]

_PLAIN: dict[Activation, nn.Module] = {
    "none": nn.Identity(),
    "double_swish": DoubleSwish(),
    "swoosh_l": SwooshL(),
    "swoosh_r": SwooshR(),
}


def plain_activation(x: Tensor, activation: Activation) -> Tensor:
    y: Tensor = _PLAIN[activation](x)
    return y


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """`ACTIVATION` of float32 x."""
    if ACTIVATION == "double_swish":
        return x * tl.sigmoid(x - 1.0)
    if ACTIVATION == "swoosh_l":
        return _softplus(x - 4.0) - 0.08 * x - 0.035
    if ACTIVATION == "swoosh_r":
        return _softplus(x - 1.0) - 0.08 * x - 0.313261687
    return x


if triton.knobs.runtime.interpret:  # the interpreter has no GPU instructions

    @triton.jit
    def _log(x):
        return tl.log(x)

else:
    from triton.language.extra.cuda import libdevice

    @triton.jit
    def _log(x):
        """The logarithm in two instructions, accurate to 22 bits."""
        return libdevice.fast_logf(x)


@triton.jit
def _softplus(x):
    """log(1 + exp(x)) without overflow."""
    return tl.maximum(x, 0.0) + _log(1.0 + tl.exp(-tl.abs(x)))
