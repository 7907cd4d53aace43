"""Comparison of a kernel's output with that of its plain twin."""

from __future__ import annotations

import torch
from torch import Tensor

# Of values around 1: rounding of inputs and of one stored intermediate result.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def assert_close(ours: Tensor, plain: Tensor, *, where: Tensor | None = None) -> None:
    """Equal to within the rounding of `ours`' dtype, relative to the largest value, `where` it is true. All values must
    be finite."""
    assert ours.shape == plain.shape
    assert ours.dtype == plain.dtype
    assert torch.isfinite(ours).all()
    tolerance = TOLERANCE[ours.dtype]
    ours, plain = ours.float(), plain.float()
    if where is not None:
        ours, plain = ours.where(where, 0.0), plain.where(where, 0.0)
    scale = max(1.0, float(plain.abs().max()))
    error = float((ours - plain).abs().max()) / scale
    assert error <= tolerance


def within(frames: int, lengths: Tensor, *, axes: int = 1) -> Tensor:
    """bool [B, T, 1, ...] with `axes` ones: the frames before each utterance's end."""
    inside = torch.arange(frames, device=lengths.device) < lengths[:, None]
    return inside.reshape(*inside.shape, *[1] * axes)
