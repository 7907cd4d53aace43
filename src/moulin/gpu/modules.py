"""Modules of several encoders: an embedding, and modules of layers, which add their output to rows [B T, D] in place.

The last bias of such a module is not added (see `Projection`); `missing` [D] is the vector that its input lacks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from moulin.encoders.subsampling import Conv2dSubsampling
from moulin.gpu.encoder import Addition, Projection, embedding_projection, on
from moulin.gpu.kernels.activations import Activation
from moulin.gpu.kernels.depthwise import Depthwise, depthwise
from moulin.gpu.kernels.pointwise import activate_, basic_norm, gate
from moulin.gpu.kernels.subsampling import Subsampling, subsampling


class Embedding:
    """`moulin.encoders.subsampling.Conv2dSubsampling`: features to rows."""

    def __init__(self, embed: Conv2dSubsampling, like: Tensor, *, whole: bool = True) -> None:
        """Unless the features are `whole` utterances, there are no zeros before and after them."""
        one, two, three = (embed.conv[index] for index in (0, 2, 4))
        convs = Subsampling.of(one, two, three, "double_swish", like.device, like.dtype)  # type: ignore[arg-type]
        self._convs = convs if whole else replace(convs, padding=(0, convs.padding[1]))
        self._out = embedding_projection(embed.out, embed.out.in_features // convs.channels[2], like)
        self._epsilon = float(embed.out_norm.eps.exp())
        self._nothing_missing = torch.zeros(embed.out.out_features, device=like.device)

    def frames(self, frames: int) -> int:
        """T' for features of T = `frames`."""
        return self._convs.frames(frames)

    def __call__(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features float32 [B, T, F] of `lengths` int32 [B] frames to rows [B T', D]."""
        x = subsampling(features, lengths, self._convs)
        rows = self._out(x.view(x.shape[0] * x.shape[1], -1))
        return basic_norm(rows, self._nothing_missing, self._epsilon)


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


def linear_layers(module: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    """The layers of a `moulin.encoders.subsampling.feed_forward`."""
    up, _, down = module
    assert isinstance(up, nn.Linear)
    assert isinstance(down, nn.Linear)
    return up, down
