"""Elements and rows between matrix products."""

from __future__ import annotations

import pytest
import torch

from moulin.gpu.kernels.activations import Activation
from moulin.gpu.kernels.pointwise import (
    activate_,
    activate_plain,
    basic_norm,
    basic_norm_bypass,
    basic_norm_bypass_plain,
    basic_norm_plain,
    bias_norm,
    bias_norm_bypass,
    bias_norm_bypass_plain,
    bias_norm_plain,
    bypass,
    bypass_plain,
    gate,
    gate_plain,
)
from tests.gpu.compare import assert_close

SHAPES = [(5, 7), (33, 144), (1, 600)]


@pytest.mark.parametrize("activation", ["double_swish", "swoosh_l", "swoosh_r"])
@pytest.mark.parametrize("shape", SHAPES)
def test_activations(shape: tuple[int, int], activation: Activation, dtype: torch.dtype, device: torch.device) -> None:
    x = (torch.randn(shape, device=device) * 3).to(dtype)
    wanted = activate_plain(x, activation)
    assert_close(activate_(x, activation), wanted)


def test_activations_of_a_part_of_the_columns(device: torch.device) -> None:
    x = torch.randn(9, 40, device=device)
    before = x.clone()
    activate_(x[:, 16:], "swoosh_l")
    assert torch.equal(x[:, :16], before[:, :16])
    assert_close(x[:, 16:].contiguous(), activate_plain(before[:, 16:], "swoosh_l"))


def test_activations_of_great_values(device: torch.device) -> None:
    x = torch.tensor([[-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4]], device=device)
    activations: tuple[Activation, ...] = ("double_swish", "swoosh_l", "swoosh_r")
    for activation in activations:
        assert_close(activate_(x.clone(), activation), activate_plain(x, activation))


@pytest.mark.parametrize("shape", SHAPES)
def test_gates(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
    rows, columns = shape
    x = torch.randn(rows, 2 * columns, device=device).to(dtype)
    assert_close(gate(x), gate_plain(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_norms_and_bypasses(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
    rows, columns = shape
    x, before = (torch.randn(rows, columns, device=device).to(dtype) for _ in range(2))
    shift, bias, scale = (torch.rand(columns, device=device) for _ in range(3))
    assert_close(bypass(x, shift, before, scale), bypass_plain(x, shift, before, scale))
    assert_close(bias_norm(x, bias, 1.3), bias_norm_plain(x, bias, 1.3))
    assert_close(
        bias_norm_bypass(x, shift, bias, 1.3, before, scale), bias_norm_bypass_plain(x, shift, bias, 1.3, before, scale)
    )
    assert_close(basic_norm(x, shift, 0.3), basic_norm_plain(x, shift, 0.3))
    assert_close(basic_norm_bypass(x, shift, 0.3, before, scale), basic_norm_bypass_plain(x, shift, 0.3, before, scale))
