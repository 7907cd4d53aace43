"""The normalisations of Icefall's encoders: division by the root mean square, without subtracting the mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BasicNorm(nn.Module):
    """x / sqrt(mean(x^2) + exp(eps)) over the last axis, `eps` learned as a logarithm (Conformer, LSTM, Zipformer)."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(dim=-1, keepdim=True) + self.eps.exp()).rsqrt()


class BiasNorm(nn.Module):
    """x * exp(log_scale) / rms(x - bias) over the last axis (Zipformer2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * ((x - self.bias).square().mean(dim=-1, keepdim=True).rsqrt() * self.log_scale.exp())
