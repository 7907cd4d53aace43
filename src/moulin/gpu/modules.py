"""Modules of the encoders' layers that add their output to rows [B T, D], in place.

A module's last bias is not added (see `Projection`); `missing` [D] is the vector that its input lacks.
"""

from __future__ import annotations

from torch import Tensor, nn

from moulin.gpu.encoder import Addition, Projection
from moulin.gpu.kernels.activations import Activation
from moulin.gpu.kernels.depthwise import Depthwise, depthwise
from moulin.gpu.kernels.pointwise import activate_, gate


class FeedForward:
    """Two linear layers with an activation between them."""

    def __init__(
        self, up: nn.Linear, down: nn.Linear, activation: Activation, *, missing: Tensor | None, like: Tensor
    ) -> None:
        self._up, self._activation = Projection.of(up, missing=missing, like=like), activation
        self._down = Addition.of(down, like=like)

    def __call__(self, rows: Tensor) -> Tensor:
        return self._down(rows, activate_(self._up(rows), self._activation))


class Convolution:
    """A gated linear unit, a convolution over time, an activation, and a linear layer."""

    def __init__(
        self,
        first: nn.Linear | nn.Conv1d,
        conv: Depthwise,
        last: nn.Linear | nn.Conv1d,
        activation: Activation,
        *,
        missing: Tensor,
        like: Tensor,
    ) -> None:
        self._first, self._conv = Projection.of(first, missing=missing, like=like), conv
        self._last, self._activation = Addition.of(last, like=like), activation

    def __call__(self, rows: Tensor, batch: int, lengths: Tensor) -> Tensor:
        gated = gate(self._first(rows)).view(batch, -1, rows.shape[1])
        return self._last(rows, depthwise(gated, lengths, self._conv, self._activation).view_as(rows))
