"""The steps of an LSTM around its matrix products against their plain twins."""

from __future__ import annotations

import pytest
import torch

from moulin.gpu.kernels.lstm_cell import (
    add_output,
    add_output_plain,
    beside_output,
    beside_output_plain,
    lstm_cell,
    lstm_cell_plain,
)
from moulin.gpu.kernels.stream_attention import Chunks
from tests.gpu.compare import assert_close


@pytest.fixture
def at(device: torch.device) -> Chunks:
    """Three streams in five slots, of which the second begins."""
    return Chunks(*(torch.tensor(values, dtype=torch.int32, device=device) for values in ([4, 0, 2], [1, 0, 70_000])))


def states(at: Chunks, dim: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The same twice; what has not begun may be anything."""
    state = torch.randn(5, dim, device=at.slots.device).to(dtype)
    state[at.slots[at.numbers == 0].long()] = torch.nan
    return state, state.clone()


@pytest.mark.parametrize("dim", [36, 512, 1030])
def test_against_the_plain_twins(dim: int, at: Chunks, dtype: torch.dtype, device: torch.device) -> None:
    rows, said = (torch.randn(3, dim, device=device).to(dtype) for _ in range(2))
    outputs, plain_outputs = states(at, dim, dtype)
    assert torch.equal(beside_output(rows, at, outputs), beside_output_plain(rows, at, plain_outputs))
    ours, plain = add_output(rows.clone(), said, at, outputs), add_output_plain(rows.clone(), said, at, plain_outputs)
    assert_close(ours, plain)
    assert torch.equal(outputs, plain_outputs)
    gates = torch.randn(3, 4 * dim, device=device).to(dtype) * 3
    cells, plain_cells = states(at, dim, torch.float32)
    assert_close(lstm_cell(gates, at, cells), lstm_cell_plain(gates, at, plain_cells))
    assert_close(cells, plain_cells)
