"""Causal convolutions of streams against their plain twin, window after window."""

from __future__ import annotations

import math

import pytest
import torch

from moulin.gpu.kernels.depthwise import Depthwise
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.kernels.stream_convolutions import ring_causal_depthwise, ring_causal_depthwise_plain
from tests.gpu.compare import assert_close


@pytest.mark.parametrize(
    ("chunk", "right", "kernel", "dim"),
    [(5, 2, 9, 50), (1, 0, 31, 64), (2, 4, 3, 12), (100, 0, 5, 70)],
    ids=["odd", "single frames", "more right context than chunk", "longer than the kernel"],
)
def test_window_after_window(
    chunk: int, right: int, kernel: int, dim: int, dtype: torch.dtype, device: torch.device
) -> None:
    frames = chunk + right
    weight, bias = torch.randn(kernel, dim, device=device) / math.sqrt(kernel), torch.randn(dim, device=device)
    conv = Depthwise(weight.to(dtype), bias.to(dtype), kernel - 1)
    rings = [torch.full((3, kernel - 1 + frames, dim), torch.nan, device=device).to(dtype) for _ in range(2)]
    numbers = [0, 0]
    for step in range(4):
        streams = [1, 0] if step % 2 else [0]
        at = Chunks(
            torch.tensor([stream + 1 for stream in streams], dtype=torch.int32, device=device),
            torch.tensor([numbers[stream] for stream in streams], dtype=torch.int32, device=device),
        )
        projected = torch.randn(len(streams) * frames, 2 * dim, device=device).to(dtype)
        ours, plain = (
            compute(projected, at, ring, conv, "double_swish", chunk=chunk)
            for compute, ring in zip((ring_causal_depthwise, ring_causal_depthwise_plain), rings, strict=True)
        )
        assert_close(ours, plain)
        for stream in streams:
            numbers[stream] += 1
