"""The Conformer's attention against its plain twin."""

from __future__ import annotations

import pytest
import torch

from moulin.gpu.kernels.relative_attention import relative_attention, relative_attention_plain
from tests.gpu.compare import assert_close, within

from .attention_sizes import SIZES, Sizes


@pytest.mark.parametrize("sizes", SIZES, ids=["odd", "two blocks"])
def test_attention_by_content_and_distance(sizes: Sizes, product_dtype: torch.dtype, device: torch.device) -> None:
    lengths = torch.tensor(sizes.lengths, dtype=torch.int32, device=device)
    batch, frames = len(lengths), max(sizes.lengths)
    dim = sizes.heads * sizes.query_dim
    projected = torch.randn(batch, frames, 3 * dim, device=device).to(product_dtype) * 0.5
    table = torch.randn(2 * (frames + 1) - 1, dim, device=device).to(product_dtype) * 0.5
    shift = torch.randn(sizes.heads, sizes.query_dim, device=device).to(product_dtype)
    ours = relative_attention(projected, lengths, table, shift)
    assert_close(ours, relative_attention_plain(projected, lengths, table, shift), where=within(frames, lengths))


def test_what_is_beyond_an_utterance_changes_nothing(device: torch.device) -> None:
    lengths = torch.tensor([20], dtype=torch.int32, device=device)
    projected = torch.randn(1, 50, 48, device=device)
    table, shift = torch.randn(101, 16, device=device), torch.randn(2, 8, device=device)
    ours = relative_attention(projected, lengths, table, shift)[:, :20]
    projected[:, 20:] = 1e3
    assert torch.equal(ours, relative_attention(projected, lengths, table, shift)[:, :20])
