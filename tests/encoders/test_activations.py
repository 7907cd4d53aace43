"""Activations against their formulas in double precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from moulin.encoders.activations import DoubleSwish, SwooshL, SwooshR


def _swoosh(offset: float, constant: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.logaddexp(torch.zeros_like(x), x - offset) - 0.08 * x - constant


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        (SwooshL(), _swoosh(4.0, 0.035)),
        (SwooshR(), _swoosh(1.0, 0.313261687)),
        (DoubleSwish(), lambda x: x / (1 + torch.exp(1 - x))),
    ],
)
def test_formula(activation: nn.Module, formula: Callable[[Tensor], Tensor]) -> None:
    x = torch.cat([torch.linspace(-30, 30, 1201), torch.tensor([-1e4, 1e4])])
    torch.testing.assert_close(activation(x).double(), formula(x.double()), rtol=1e-5, atol=2e-6)


def test_swoosh_r_is_zero_at_zero() -> None:
    assert abs(float(SwooshR()(torch.zeros(1)))) < 1e-6
