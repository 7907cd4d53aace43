"""What the GPU forms of all encoders have in common.

A form is made of an encoder of `moulin.encoders`, which is its plain twin, and computes the same with fewer, larger
steps: matrix products by cuBLAS, and between them one kernel of ours for all that happens to an element or a row. No
step depends on values on the GPU, so that a whole pass can be captured as a CUDA graph.

Every utterance gives what it would give alone: what is beyond its length is treated as what is beyond the input of an
encoder that runs it alone, in convolutions and frame averages too. Icefall's encoders let padding in there.

Rows [B T, D] and frames [B, T, D] are views of the same memory; lengths are int32 [B].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from moulin.arrays import Ints32
from moulin.encoders.joiner import Joiner
from moulin.gpu.kernels.stream_attention import Chunks

Counts = Ints32


class GpuEncoder(ABC):
    """Features to what the joiner takes of them, for batches of whole utterances."""

    dtype: torch.dtype
    feature_dim: int

    @abstractmethod
    def __init__(
        self, encoder: Any, joiner: Joiner, *, device: torch.device, dtype: torch.dtype, max_frames: int
    ) -> None:
        """The form of `encoder`, which is of the family that `moulin.gpu.families` has it for, and of the joiner's
        projection, for utterances of up to `max_frames` feature frames."""

    @abstractmethod
    def counts(self, frames: Counts) -> Counts:
        """How many frames utterances of `frames` int32 [B] feature frames have at each of the encoder's frame rates:
        int32 [S, B]. The first row is `frames` itself, the last that of encoder_out."""

    def counts_of(self, frames: int) -> Counts:
        """`counts` of one utterance: int32 [S, 1]."""
        return self.counts(np.array([frames], dtype=np.int32))

    def out_frames(self, frames: int) -> int:
        """T' of a batch of T = `frames`."""
        return int(self.counts_of(frames)[-1, 0])

    @abstractmethod
    def __call__(self, features: Tensor, counts: Tensor) -> Tensor:
        """Features float32 [B, T, feature_dim] and `counts` int32 [S, B], all at least 1, to encoder_out
        [B, T', joiner_dim]."""


class GpuStreamEncoder(Protocol):
    """Feature windows of streams to what the joiner takes of them; the states of all streams are on the card, by slot.

    Slots need no reset: chunk 0 of a stream looks at nothing that another left there. A chunk that is computed again
    gives the same.
    """

    dtype: torch.dtype
    feature_dim: int

    def __init__(
        self,
        encoder: Any,
        joiner: Joiner,
        *,
        capacity: int,
        max_batch: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """The form of `encoder`, which is of the family that `moulin.gpu.families` has it for, and of the joiner's
        projection, for streams in `capacity` slots. Raises EngineError for sizes that the kernels do not take."""

    @staticmethod
    def values_a_stream(encoder: Any) -> int:
        """How many numbers of `dtype` a stream's states are."""

    @property
    def out_frames(self) -> int:
        """Encoder frames of a chunk."""

    def __call__(self, windows: Tensor, at: Chunks) -> Tensor:
        """Windows float32 [B, T, feature_dim] of the chunks `at` to encoder_out [B, out_frames, joiner_dim]."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear layer of rows that stand for rows plus a constant: `weight` [K, N] (transposed), `bias` [N] or None.

    Adding a bias to what is a sum already would be a step of its own. Instead the sum goes without it, and the next
    layer's bias makes up for it: `then` of the vector that is missing in its input.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, *layers: nn.Linear | nn.Conv1d, missing: Tensor | None, like: Tensor) -> Projection:
        """The layers (of one input; convolutions over one frame) side by side, whose input lacks `missing` [K]. Of the
        dtype and on the device of `like`."""
        weight = torch.cat([layer.weight.detach().float().flatten(1) for layer in layers])
        bias = torch.cat([bias_of(layer) for layer in layers])
        if missing is not None:
            bias = bias + weight @ missing
        return cls(weight.t().to(like.device, like.dtype), bias.to(like.device, like.dtype))

    def __call__(self, rows: Tensor) -> Tensor:
        return torch.addmm(self.bias, rows, self.weight)


@dataclass(frozen=True, slots=True)
class Addition:
    """A linear layer whose output is added to rows, without its bias: `weight` [K, N] (transposed)."""

    weight: Tensor

    @classmethod
    def of(cls, layer: nn.Linear | nn.Conv1d, *, like: Tensor) -> Addition:
        return cls(layer.weight.detach().float().flatten(1).t().to(like.device, like.dtype))

    def __call__(self, rows: Tensor, change: Tensor) -> Tensor:
        """`rows` with what the layer makes of `change` added to them, in place."""
        return rows.addmm_(change, self.weight)

    def beside(self, rows: Tensor, change: Tensor) -> Tensor:
        """The same in new memory: `rows` stay."""
        return torch.addmm(rows, change, self.weight)


def bias_of(layer: nn.Linear | nn.Conv1d) -> Tensor:
    """float32 [N]; zeros where the layer has none."""
    if layer.bias is None:
        return torch.zeros(layer.weight.shape[0])
    return layer.bias.detach().float()


def on(tensor: Tensor, like: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """A parameter where `like` is, in its dtype unless another is given."""
    return tensor.detach().to(like.device, dtype or like.dtype).contiguous()


def embedding_projection(out: nn.Linear, bands: int, like: Tensor) -> Projection:
    """The projection after the convolutions, for channels last: its inputs are [bands, channels] instead of [channels,
    bands]."""
    swapped = nn.Linear(out.in_features, out.out_features)
    weight = out.weight.detach().reshape(len(out.weight), -1, bands).transpose(1, 2).flatten(1)
    swapped.load_state_dict({"weight": weight, "bias": out.bias.detach()})
    return Projection.of(swapped, missing=None, like=like)
