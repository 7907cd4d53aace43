"""The encoder states of all streams, in host memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Ints
from moulin.bundle.spec import StateSpec


class EncoderStates:
    """One array a state, with `capacity` slots on its batch axis.

    The operating system gives the memory when a slot is first written, so that a large capacity costs nothing until
    it is used. Different slots may be used from different threads.
    """

    def __init__(self, specs: Sequence[StateSpec], capacity: int) -> None:
        self._axes = [spec.batch_axis for spec in specs]
        self._arrays = [np.zeros(_with_batch(spec, capacity), dtype=spec.dtype) for spec in specs]

    def gather(self, slots: Ints) -> list[NDArray[Any]]:
        """The states of `slots` [N] as batches, in the order of the specs."""
        return [np.take(array, slots, axis=axis) for array, axis in zip(self._arrays, self._axes, strict=True)]

    def scatter(self, slots: Ints, batches: Sequence[NDArray[Any]]) -> None:
        """Write batches to `slots` [N], as `gather` gives them."""
        for array, axis, batch in zip(self._arrays, self._axes, batches, strict=True):
            array[(slice(None),) * axis + (slots,)] = batch

    def reset(self, slots: Ints) -> None:
        """Set the states of `slots` [N] to zeros, as at the beginning of a stream."""
        for array, axis in zip(self._arrays, self._axes, strict=True):
            array[(slice(None),) * axis + (slots,)] = 0


def _with_batch(spec: StateSpec, size: int) -> tuple[int, ...]:
    return (*spec.shape[: spec.batch_axis], size, *spec.shape[spec.batch_axis + 1 :])
