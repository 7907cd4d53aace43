"""The error for an encoder whose numbers left the range of its precision."""

from __future__ import annotations

from moulin.bundle.spec import ModelSpec
from moulin.errors import EngineError


def precision_error(spec: ModelSpec, expected: str) -> EngineError:
    """`expected` is the beginning of its message."""
    if spec.precision == "fp32":
        return EngineError(
            f"{expected}, got NaN or infinity",
            hint="an engine of TensorRT may need --precision fp32; else the model itself is broken",
        )
    return EngineError(
        f"{expected}, got NaN or infinity: it needs more than {spec.precision}",
        hint="--precision bf16 has the range of fp32; --precision fp32 has its exactness too",
    )
