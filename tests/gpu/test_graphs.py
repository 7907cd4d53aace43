"""Sizes to which batches are filled up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from moulin.gpu.graphs import bucket_frames, bucket_rows, capture, most_rows


def test_frames_are_filled_up_by_a_sixteenth_at_most() -> None:
    sizes = {bucket_frames(frames) for frames in range(1, 12_001)}
    assert len(sizes) < 120
    for frames in range(1, 12_001):
        size = bucket_frames(frames)
        assert frames <= size < frames + max(32, frames // 16 + 1)
        assert bucket_frames(size) == size


def test_rows_are_filled_up_by_a_quarter_at_most() -> None:
    for rows in range(1, 600):
        size = bucket_rows(rows)
        assert rows <= size <= 1.25 * rows
        assert bucket_rows(size) == size


def test_the_most_rows_need_no_filling_up() -> None:
    for limit in range(600):
        rows = most_rows(limit)
        assert bucket_rows(rows) == rows
        assert 1 <= rows <= max(limit, 1)
        assert bucket_rows(rows + 1) > max(limit, 1)


def test_a_thread_may_capture_before_it_has_multiplied(device: torch.device) -> None:
    """As when another thread had the first batch of a size."""
    if device.type != "cuda":
        pytest.skip("graphs need a GPU")
    a = torch.rand(64, 64, device=device)
    out, expected = torch.zeros_like(a), a @ a
    stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def captured() -> torch.cuda.CUDAGraph:
        with torch.inference_mode(), torch.cuda.stream(stream):
            return capture(lambda: out.copy_(a @ a), None)[0]

    with ThreadPoolExecutor(1) as fresh:
        graph = fresh.submit(captured).result()
    out.zero_()
    with torch.cuda.stream(stream):
        graph.replay()
        stream.synchronize()
    assert torch.equal(out, expected)
