"""The mean over each frame of a stream and all before it, with the mean so far of every stream by slot."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.stream_attention import Chunks

_BLOCK_D = 64


def running_means_plain(x: Tensor, at: Chunks, means: Tensor) -> Tensor:
    """The plain twin of `running_means`, stream by stream."""
    out = torch.empty_like(x)
    frames = len(x) // len(at.slots)
    for row, (slot, number) in enumerate(zip(at.slots.tolist(), at.numbers.tolist(), strict=True)):
        chunk, before = x[row * frames : (row + 1) * frames].float(), number * frames
        total = chunk.cumsum(dim=0) + (means[slot] * before if number else 0.0)
        mean = total / torch.arange(before + 1, before + frames + 1, device=x.device)[:, None]
        means[slot] = mean[-1]
        out[row * frames : (row + 1) * frames] = mean.to(out.dtype)
    return out


def running_means(x: Tensor, at: Chunks, means: Tensor) -> Tensor:
    """The mean over each frame of x [B chunk, D] and all frames of its stream before it: the same shape. `means`
    float32 [slots, D] takes the last frame's."""
    rows, dim = x.shape
    frames = rows // len(at.slots)
    out = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
    _running_means_kernel[(len(at.slots), triton.cdiv(dim, _BLOCK_D))](
        x, at.slots, at.numbers, means, out, dim, frames, triton.next_power_of_2(frames), _BLOCK_D, num_warps=4
    )
    return out


@triton.jit
def _running_means_kernel(
    x, slots, numbers, means, out, dim, FRAMES: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    before = tl.load(numbers + row) * FRAMES
    t, d = tl.arange(0, BLOCK_T), tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    known = d < dim
    inside = (t < FRAMES)[:, None] & known[None, :]
    means += tl.load(slots + row).to(tl.int64) * dim + d
    at = row * FRAMES * dim + t[:, None] * dim + d[None, :]
    total = tl.cumsum(tl.load(x + at, mask=inside, other=0.0).to(tl.float32), axis=0)
    total += (tl.load(means, mask=known & (before > 0), other=0.0) * before.to(tl.float32))[None, :]
    mean = total / (before + 1 + t).to(tl.float32)[:, None]
    tl.store(out + at, mean.to(out.dtype.element_ty), mask=inside)
    last = tl.sum(tl.where((t == FRAMES - 1)[:, None], mean, 0.0), axis=0)
    tl.debug_barrier()  # when all threads have the mean before the chunk
    tl.store(means, last, mask=known)
