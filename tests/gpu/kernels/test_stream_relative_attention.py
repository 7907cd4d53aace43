"""Attention of streams by content and distance against its plain twin, window after window."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.kernels.stream_relative_attention import ring_relative_attention, ring_relative_attention_plain
from tests.gpu.compare import assert_close


@dataclass(frozen=True)
class Sizes:
    chunk: int
    right: int
    left: int
    heads: int
    dim: int


@pytest.mark.parametrize(
    "sizes",
    [Sizes(5, 2, 9, 3, 5), Sizes(1, 4, 3, 1, 33), Sizes(16, 0, 150, 2, 16), Sizes(70, 0, 5, 1, 12)],
    ids=["odd", "more right context than chunk", "two blocks of keys", "two blocks of queries"],
)
def test_window_after_window(sizes: Sizes, product_dtype: torch.dtype, device: torch.device) -> None:
    """Three streams in four slots; one is not in every batch."""
    frames, width = sizes.chunk + sizes.right, sizes.heads * sizes.dim
    table = torch.randn(sizes.left + 2 * frames - 1, width, device=device).to(product_dtype) * 0.5
    shift = torch.randn(sizes.heads, sizes.dim, device=device).to(product_dtype)
    # Frames before the beginning may be anything.
    rings = [torch.full((4, sizes.left + sizes.chunk, 2 * width), torch.nan, device=device) for _ in range(2)]
    ring, plain_ring = (ring.to(product_dtype) for ring in rings)
    numbers = [0, 0, 0]
    for step in range(4):
        streams = [2, 0, 1] if step % 2 else [0, 1]
        at = Chunks(
            torch.tensor([stream + 1 for stream in streams], dtype=torch.int32, device=device),
            torch.tensor([numbers[stream] for stream in streams], dtype=torch.int32, device=device),
        )
        projected = torch.randn(len(streams) * frames, 3 * width, device=device).to(product_dtype) * 0.5
        ours = ring_relative_attention(projected, at, ring, table, shift, chunk=sizes.chunk)
        assert_close(ours, ring_relative_attention_plain(projected, at, plain_ring, table, shift, chunk=sizes.chunk))
        assert torch.equal(ring.nan_to_num(7.0), plain_ring.nan_to_num(7.0))
        for stream in streams:
            numbers[stream] += 1
