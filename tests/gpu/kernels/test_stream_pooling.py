"""Means over all frames of a stream so far against their plain twin, chunk after chunk."""

from __future__ import annotations

import pytest
import torch

from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.kernels.stream_pooling import running_means, running_means_plain
from tests.gpu.compare import assert_close


@pytest.mark.parametrize(("chunk", "dim"), [(1, 64), (7, 5), (16, 130)])
def test_chunk_after_chunk(chunk: int, dim: int, dtype: torch.dtype, device: torch.device) -> None:
    means, plain_means = (torch.full((3, dim), torch.nan, device=device) for _ in range(2))
    numbers = [0, 0]
    for step in range(5):
        streams = [1, 0] if step % 2 else [0]
        at = Chunks(
            torch.tensor([stream + 1 for stream in streams], dtype=torch.int32, device=device),
            torch.tensor([numbers[stream] for stream in streams], dtype=torch.int32, device=device),
        )
        x = torch.randn(len(streams) * chunk, dim, device=device).to(dtype)
        assert_close(running_means(x, at, means), running_means_plain(x, at, plain_means))
        assert_close(means.nan_to_num(7.0), plain_means.nan_to_num(7.0))
        for stream in streams:
            numbers[stream] += 1


def test_the_mean_of_a_long_stream_still_follows(device: torch.device) -> None:
    """After an hour a chunk changes it by less than the resolution of half precision."""
    chunk, number = 16, 11_250
    at = Chunks(*(torch.tensor([value], dtype=torch.int32, device=device) for value in (0, number)))
    means = torch.ones(1, 1, device=device)
    running_means(torch.full((chunk, 1), 3.0, device=device, dtype=torch.float16), at, means)
    assert float(means) == pytest.approx(1.0 + 2.0 / (number + 1), abs=2e-7)
