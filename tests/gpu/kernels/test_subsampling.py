"""The convolutions over time and frequency."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from moulin.gpu.kernels.activations import Activation
from moulin.gpu.kernels.subsampling import Subsampling, subsampling, subsampling_plain
from tests.gpu.compare import assert_close, within


@pytest.mark.parametrize(
    ("padding", "stride", "activation"), [((0, 1), 1, "swoosh_r"), ((1, 1), 2, "double_swish"), ((0, 0), 2, "swoosh_r")]
)
def test_subsampling(
    padding: tuple[int, int], stride: int, activation: Activation, product_dtype: torch.dtype, device: torch.device
) -> None:
    convs = (
        nn.Conv2d(1, 8, 3, padding=padding),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.Conv2d(12, 20, 3, stride=(stride, 2)),
    )
    one, two, three = (conv.to(device) for conv in convs)
    prepared = Subsampling.of(one, two, three, activation, device, product_dtype)
    lengths = torch.tensor([41, 9, 23], dtype=torch.int32, device=device)
    x = torch.randn(3, 41, 40, device=device)
    ours = subsampling(x, lengths, prepared)
    reached = torch.tensor([prepared.frames(length) for length in lengths.tolist()], device=device)
    assert_close(ours, subsampling_plain(x, lengths, prepared), where=within(ours.shape[1], reached, axes=2))
