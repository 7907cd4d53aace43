"""Attention weights, what is done with them, and the Conformer's attention."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from moulin.gpu.kernels.attention_weights import attention_weights, attention_weights_plain, distance_table
from moulin.gpu.kernels.relative_attention import relative_attention, relative_attention_plain
from moulin.gpu.kernels.weighted_values import (
    gated_values,
    gated_values_plain,
    weighted_values,
    weighted_values_plain,
)
from tests.gpu.compare import assert_close, within


@dataclass(frozen=True)
class Sizes:
    lengths: tuple[int, ...]
    heads: int
    query_dim: int
    pos_dim: int
    value_dim: int
    channels: int


SIZES = [Sizes((37, 5, 1), 3, 5, 4, 6, 21), Sizes((70, 130), 2, 32, 3, 12, 144)]


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
