"""Frame rates down and up."""

from __future__ import annotations

import pytest
import torch

from moulin.gpu.kernels.resampling import (
    attentive_downsample,
    attentive_downsample_plain,
    downsample,
    downsample_plain,
    upsample_bypass,
    upsample_bypass_plain,
)
from tests.gpu.compare import assert_close, within

FRAMES, DIM = 37, 50


@pytest.fixture
def lengths(device: torch.device) -> torch.Tensor:
    return torch.tensor([FRAMES, 5, 1], dtype=torch.int32, device=device)


@pytest.mark.parametrize("factor", [2, 8])
@pytest.mark.parametrize("channels", [30, 50, 70])
def test_down(channels: int, factor: int, lengths: torch.Tensor, dtype: torch.dtype, device: torch.device) -> None:
    x = torch.randn(len(lengths), FRAMES, DIM, device=device).to(dtype)
    weights = torch.rand(factor, device=device)
    ours = downsample(x, lengths, weights, channels)
    groups = (lengths + factor - 1) // factor
    assert_close(ours, downsample_plain(x, lengths, weights, channels), where=within(ours.shape[1], groups))


@pytest.mark.parametrize("factor", [2, 3])
def test_down_with_attention(factor: int, lengths: torch.Tensor, dtype: torch.dtype, device: torch.device) -> None:
    x = torch.randn(len(lengths), FRAMES, DIM, device=device).to(dtype)
    query = torch.randn(DIM, device=device)
    ours = attentive_downsample(x, lengths, query, factor, DIM)
    groups = (lengths + factor - 1) // factor
    wanted = attentive_downsample_plain(x, lengths, query, factor, DIM)
    assert_close(ours, wanted, where=within(ours.shape[1], groups))


@pytest.mark.parametrize("factor", [1, 4])
@pytest.mark.parametrize("channels", [30, 50, 70])
@pytest.mark.parametrize("shifted", [False, True])
def test_up(channels: int, factor: int, shifted: bool, dtype: torch.dtype, device: torch.device) -> None:
    before = torch.randn(2, FRAMES, DIM, device=device).to(dtype)
    after = torch.randn(2, -(-FRAMES // factor), channels, device=device).to(dtype)
    scale = torch.rand(channels, device=device)
    shift = torch.randn(factor, channels, device=device) if shifted else None
    ours = upsample_bypass(before, after, factor, scale, shift)
    assert_close(ours, upsample_bypass_plain(before, after, factor, scale, shift))
