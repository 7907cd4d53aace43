"""The activations of Icefall's encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DoubleSwish(nn.Module):
    """x sigmoid(x - 1), which approximates swish(swish(x)) (Conformer, LSTM, Zipformer)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x - 1.0)


class Swoosh(nn.Module):
    """log(1 + exp(x - offset)) - 0.08 x - constant (Zipformer2).

    Computed as in `moulin.onnx_rewrites.swoosh`: fewer ONNX operators than the formula above, and no overflow.
    """

    def __init__(self, offset: float, constant: float) -> None:
        super().__init__()
        self._offset = offset
        self._constant = constant + 0.08 * offset

    def forward(self, x: Tensor) -> Tensor:
        z = x - self._offset
        # log(1 + exp z) = max(z, 0) - log(sigmoid(|z|)), and max(z, 0) - 0.08 z is a leaky ReLU.
        linear = nn.functional.leaky_relu(z, -0.08 / 0.92) * 0.92
        return linear - torch.log(torch.sigmoid(z.abs())) - self._constant


class SwooshL(Swoosh):
    def __init__(self) -> None:
        super().__init__(4.0, 0.035)


class SwooshR(Swoosh):
    """Zero at zero, up to rounding."""

    def __init__(self) -> None:
        super().__init__(1.0, 0.313261687)
