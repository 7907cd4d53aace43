"""The steps of an LSTM around its matrix products, with the last output and the cells of every stream by slot.

Before its first chunk a stream's states may hold anything: they are taken for zeros.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.stream_attention import Chunks

_BLOCK = 512


def beside_output_plain(rows: Tensor, at: Chunks, outputs: Tensor) -> Tensor:
    return torch.cat([rows, _state(outputs, at)], dim=1)


def beside_output(rows: Tensor, at: Chunks, outputs: Tensor) -> Tensor:
    """`rows` [B, D] beside the streams' last `outputs` [slots, D]: [B, 2 D]."""
    batch, dim = rows.shape
    out = torch.empty(batch, 2 * dim, dtype=rows.dtype, device=rows.device)
    _beside_kernel[(batch, triton.cdiv(dim, _BLOCK))](rows, at.slots, at.numbers, outputs, out, dim, _BLOCK)
    return out


def lstm_cell_plain(gates: Tensor, at: Chunks, cells: Tensor) -> Tensor:
    write, keep, new, read = gates.float().chunk(4, dim=1)
    cell = keep.sigmoid() * _state(cells, at) + write.sigmoid() * new.tanh()
    cells[at.slots.long()] = cell
    return (read.sigmoid() * cell.tanh()).to(gates.dtype)


def lstm_cell(gates: Tensor, at: Chunks, cells: Tensor) -> Tensor:
    """The output [B, C] before its projection, for `gates` [B, 4 C]: those that write to the cells, those that keep
    them, the new values, and the gates that read them. `cells` float32 [slots, C] become the next ones."""
    batch, dim = gates.shape[0], gates.shape[1] // 4
    out = torch.empty(batch, dim, dtype=gates.dtype, device=gates.device)
    _cell_kernel[(batch, triton.cdiv(dim, _BLOCK))](gates, at.slots, at.numbers, cells, out, dim, _BLOCK)
    return out


def add_output_plain(rows: Tensor, said: Tensor, at: Chunks, outputs: Tensor) -> Tensor:
    outputs[at.slots.long()] = said
    return rows.add_(said)


def add_output(rows: Tensor, said: Tensor, at: Chunks, outputs: Tensor) -> Tensor:
    """Add the LSTM's output `said` [B, D] to `rows` [B, D] in place, and keep it in `outputs` [slots, D]."""
    batch, dim = rows.shape
    _add_kernel[(batch, triton.cdiv(dim, _BLOCK))](rows, said, at.slots, outputs, dim, _BLOCK)
    return rows


def _state(states: Tensor, at: Chunks) -> Tensor:
    return torch.where((at.numbers > 0)[:, None], states[at.slots.long()], 0.0)


@triton.jit
def _beside_kernel(rows, slots, numbers, outputs, out, dim, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = d < dim
    began = tl.load(numbers + row) > 0
    last = tl.load(outputs + tl.load(slots + row).to(tl.int64) * dim + d, mask=known & began, other=0.0)
    tl.store(out + row * 2 * dim + d, tl.load(rows + row * dim + d, mask=known, other=0.0), mask=known)
    tl.store(out + (row * 2 + 1) * dim + d, last, mask=known)


@triton.jit
def _cell_kernel(gates, slots, numbers, cells, out, dim, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = d < dim
    began = tl.load(numbers + row) > 0
    cells += tl.load(slots + row).to(tl.int64) * dim + d
    gates += row * 4 * dim + d
    write = tl.sigmoid(tl.load(gates, mask=known, other=0.0).to(tl.float32))
    keep = tl.sigmoid(tl.load(gates + dim, mask=known, other=0.0).to(tl.float32))
    new = tl.load(gates + 2 * dim, mask=known, other=0.0).to(tl.float32)
    read = tl.sigmoid(tl.load(gates + 3 * dim, mask=known, other=0.0).to(tl.float32))
    cell = keep * tl.load(cells, mask=known & began, other=0.0) + write * _tanh(new)
    tl.store(cells, cell, mask=known)
    tl.store(out + row * dim + d, (read * _tanh(cell)).to(out.dtype.element_ty), mask=known)


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _add_kernel(rows, said, slots, outputs, dim, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = d < dim
    new = tl.load(said + row * dim + d, mask=known, other=0.0)
    tl.store(outputs + tl.load(slots + row).to(tl.int64) * dim + d, new, mask=known)
    x = tl.load(rows + row * dim + d, mask=known, other=0.0).to(tl.float32) + new.to(tl.float32)
    tl.store(rows + row * dim + d, x.to(rows.dtype.element_ty), mask=known)
