"""Weights in integers, as onnxruntime's quantisation writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moulin.bundle.onnx_weights.model_file import Array


@dataclass(slots=True)
class Integers:
    """A weight that is (values - zero_point) * scale, computed when it is used.

    `scale` and `zero_point` have one value, or one for each index of `axis`.
    """

    values: Array
    zero_point: Array | None
    scale: Array | None = None
    """None until the graph multiplies by it, after the product with the weight."""
    axis: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def array(self) -> Array:
        """The weight in float32. `scale` must be known."""
        assert self.scale is not None
        return dequantized(self.values, self.scale, self.zero_point, self.axis)


def as_array(values: Array | Integers) -> Array:
    return values.array() if isinstance(values, Integers) else values


def dequantized(values: Array, scale: Array, zero_point: Array | None, axis: int) -> Array:
    """See `Integers`; float32."""
    shifted: Any = values.astype(np.int32)
    if zero_point is not None:
        shifted -= _along(zero_point.astype(np.int32), values.ndim, axis)
    weight: Array = shifted.astype(np.float32)
    weight *= _along(scale.astype(np.float32), values.ndim, axis)
    return weight


def _along(numbers: Array, ndim: int, axis: int) -> Array:
    """Numbers in a shape that applies them to the indices of `axis`; one applies to all."""
    sizes = [1] * ndim
    if numbers.size > 1:
        sizes[axis] = numbers.size
    return numbers.reshape(sizes)
