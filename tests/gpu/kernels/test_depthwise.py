"""Convolutions over time that know where an utterance ends."""

from __future__ import annotations

import math

import pytest
import torch

from moulin.gpu.kernels.depthwise import Depthwise, depthwise, depthwise_plain
from tests.gpu.compare import assert_close, within

FRAMES, KERNEL = 70, 9


@pytest.mark.parametrize("dim", [50, 64])
@pytest.mark.parametrize("kind", ["centred", "causal", "chunk causal"])
def test_against_the_plain_convolution(kind: str, dim: int, dtype: torch.dtype, device: torch.device) -> None:
    def random(*shape: int) -> torch.Tensor:
        values = torch.randn(shape, device=device) / math.sqrt(KERNEL)
        return values.to(dtype)

    left = KERNEL - 1 if kind == "causal" else KERNEL // 2
    conv = Depthwise(random(KERNEL, dim), random(dim), left)
    if kind == "chunk causal":
        conv = Depthwise(
            conv.weight, conv.bias, left, random(KERNEL // 2 + 1, dim), random(dim), random(2, KERNEL, dim)
        )
    lengths = torch.tensor([FRAMES, 5, 1, KERNEL], dtype=torch.int32, device=device)
    x = torch.randn(len(lengths), FRAMES, dim, device=device).to(dtype)
    ours = depthwise(x, lengths, conv, "swoosh_r")
    assert_close(ours, depthwise_plain(x, lengths, conv, "swoosh_r"), where=within(FRAMES, lengths))
