"""Attention weights, and the products of them with values, against their plain twins."""

from __future__ import annotations

import pytest
import torch

from moulin.gpu.kernels.attention_weights import attention_weights, attention_weights_plain, distance_table
from moulin.gpu.kernels.weighted_values import (
    gated_values,
    gated_values_plain,
    weighted_values,
    weighted_values_plain,
)
from tests.gpu.compare import assert_close, within

from .attention_sizes import SIZES, Sizes


@pytest.mark.parametrize("sizes", SIZES, ids=["odd", "two blocks"])
def test_weights_and_values(sizes: Sizes, product_dtype: torch.dtype, device: torch.device) -> None:
    lengths = torch.tensor(sizes.lengths, dtype=torch.int32, device=device)
    batch, frames, heads = len(lengths), max(sizes.lengths), sizes.heads
    key_at = heads * sizes.query_dim
    # More columns than are used: other projections may lie in the same rows.
    projected = (
        torch.randn(batch, frames, 2 * key_at + heads * sizes.pos_dim + 7, device=device).to(product_dtype) * 0.5
    )
    distances = torch.randn(heads, 2 * (frames + 3) - 1, sizes.pos_dim, device=device).to(product_dtype)
    layout = {"query_dim": sizes.query_dim, "key_at": key_at, "position_at": 2 * key_at}
    weights = attention_weights(projected, lengths, distance_table(distances), pos_dim=sizes.pos_dim, **layout)
    plain = attention_weights_plain(projected, lengths, distances, **layout)
    inside = within(frames, lengths)
    matrix = weights.matrix(lengths)
    assert_close(matrix.to(product_dtype), plain.to(product_dtype), where=inside[:, None])

    values = torch.randn(batch, frames, heads * sizes.value_dim, device=device).to(product_dtype)
    ours = weighted_values(weights, values, lengths)
    assert_close(ours.where(inside, 0.0), weighted_values_plain(plain, values), where=inside)
    gates = torch.randn(batch, frames, 3 * sizes.channels, device=device).to(product_dtype)
    ours = gated_values(weights, gates, lengths)
    assert_close(ours.where(inside, 0.0), gated_values_plain(plain, gates), where=inside)
