"""The input precision of tensor cores."""

from __future__ import annotations

import torch


def dot_precision(dtype: torch.dtype) -> str:
    """`input_precision` for `tl.dot`: float32 is not reduced to TF32; half precision is unaffected."""
    return "ieee" if dtype == torch.float32 else "tf32"
