"""Modules of the encoders' layers that add their output to rows [B T, D], in place.

A module's last bias is not added (see `Projection`); `missing` [D] is the vector that its input lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from moulin.gpu.encoder import Addition, Projection, on
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


@dataclass(frozen=True, slots=True)
class Convolution:
    """A gated linear unit, a convolution over time, an activation, and a linear layer.

    What happens between the linear layers depends on where a frame's neighbours are: `first` gives values and gates
    [B T, 2 D], and `last` adds its output for the convolved ones [B T, D].
    """

    first: Projection
    conv: Depthwise
    last: Addition

    @classmethod
    def of(
        cls,
        first: nn.Linear | nn.Conv1d,
        conv: nn.Conv1d,
        last: nn.Linear | nn.Conv1d,
        *,
        causal: bool,
        missing: Tensor,
        like: Tensor,
    ) -> Convolution:
        assert conv.bias is not None
        weight = on(conv.weight[:, 0].t(), like)
        prepared = Depthwise(weight, on(conv.bias, like), len(weight) - 1 if causal else len(weight) // 2)
        return cls(Projection.of(first, missing=missing, like=like), prepared, Addition.of(last, like=like))


def convolved(projected: Tensor, lengths: Tensor, conv: Depthwise) -> Tensor:
    """Values times the sigmoid of gates, `projected` [B T, 2 D], convolved within utterances of `lengths` int32 [B]
    frames, and activated: [B T, D]."""
    gated = gate(projected)
    return depthwise(gated.view(len(lengths), -1, gated.shape[1]), lengths, conv, "double_swish").view_as(gated)
