"""How exactly tensor cores multiply."""

from __future__ import annotations

import torch


def dot_precision(dtype: torch.dtype) -> str:
    """float32 stays float32 (no TF32); for half precision it makes no difference."""
    return "ieee" if dtype == torch.float32 else "tf32"
