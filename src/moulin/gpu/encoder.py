"""The seams of encoders on the GPU, for utterances and for streams, and the linear layers that they share.

A GPU encoder is built from one of `moulin.encoders`, its plain twin, and computes the same in fewer, larger steps:
matrix products by cuBLAS, and between them one kernel for all operations on an element or a row. No step depends on
values on the GPU, so that a whole pass can be captured as a CUDA graph.

Every utterance has the same result as alone: frames beyond its length are treated like those beyond the end of the
input, in convolutions and frame averages too. In Icefall's encoders padding affects these.

Rows [B T, D] and frames [B, T, D] are views of the same memory; lengths are int32 [B].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from moulin.arrays import Ints32
from moulin.encoders.recipe import Recipe
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.shared_parameters import shared

Counts = Ints32

At = TypeVar("At")
"""The description of a batch for an encoder's layers: lengths of utterances, or slots and chunk numbers of streams."""


class GpuEncoder(ABC):
    """An encoder from features to encoder frames, through one more layer, for batches of whole utterances."""

    dtype: torch.dtype
    feature_dim: int
    out_channels: int
    """Of the layer behind the encoder."""

    @abstractmethod
    def __init__(
        self, encoder: Any, out: nn.Linear, *, device: torch.device, dtype: torch.dtype, max_frames: int
    ) -> None:
        """The form of `encoder`, which is of the family that `moulin.gpu.families` has it for, and of the layer `out`
        behind it (`moulin.gpu.blank_skip.output_layer`), for utterances of up to `max_frames` feature frames."""

    @abstractmethod
    def counts(self, frames: Counts) -> Counts:
        """Frames of utterances of `frames` int32 [B] feature frames at each of the encoder's frame rates: int32 [S, B].
        The first row is `frames` itself, the last that of encoder_out."""

    def counts_of(self, frames: int) -> Counts:
        """`counts` of one utterance: int32 [S, 1]."""
        return self.counts(np.array([frames], dtype=np.int32))

    def out_frames(self, frames: int) -> int:
        """T' of a batch of T = `frames`."""
        return int(self.counts_of(frames)[-1, 0])

    @abstractmethod
    def __call__(self, features: Tensor, counts: Tensor) -> Tensor:
        """Features float32 [B, T, feature_dim] and `counts` int32 [S, B], all at least 1, to encoder_out
        [B, T', out_channels]."""


class GpuStreamEncoder(ABC):
    """An encoder from feature windows to encoder frames, through one more layer, with all streams' states by slot.

    Slots need no reset: chunk 0 of a stream reads nothing that another stream left there.
    """

    def __init__(
        self,
        encoder: Any,
        out: nn.Linear,
        *,
        capacity: int,
        max_batch: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """The form of `encoder`, which is of the family that `moulin.gpu.families` has it for, and of the layer `out`
        behind it (`moulin.gpu.blank_skip.output_layer`), for streams in `capacity` slots. Raises EngineError for sizes
        that the kernels do not take, and ValueError for a model that was not trained for streaming."""
        self.dtype, self.feature_dim, self._max_batch = dtype, encoder.feature_dim, max_batch
        self._like = torch.empty(0, device=device, dtype=dtype)
        self._make(encoder, capacity, self._like)
        self._projected = Projection.of(out, missing=None, like=self._like)

    @abstractmethod
    def _make(self, encoder: Any, capacity: int, like: Tensor) -> None:
        """Make all parts before the layer behind the encoder, with the dtype and on the device of `like`."""

    def _lengths_of(self, frames: int) -> Tensor:
        """int32 [max_batch], all `frames`: lengths of a batch, for kernels that ask for them."""
        return torch.full((self._max_batch,), frames, dtype=torch.int32, device=self._like.device)

    @staticmethod
    @abstractmethod
    def check_sizes(tensors: Mapping[str, Any], recipe: Recipe) -> None:
        """Raises EngineError where the kernels do not take the sizes of a model with `tensors`, of which only the
        shapes are looked at, and `recipe`, which has those of streaming."""

    @staticmethod
    @abstractmethod
    def state_bytes(encoder: Any, dtype: torch.dtype) -> int:
        """The size of a stream's states on the card, for `encoder` in `dtype`."""

    @property
    @abstractmethod
    def out_frames(self) -> int:
        """Encoder frames of a chunk, without those of its right context."""

    @abstractmethod
    def __call__(self, windows: Tensor, at: Chunks) -> Tensor:
        """Windows float32 [B, T, feature_dim] of the chunks `at` to encoder_out [B, out_frames, channels].

        A window holds the features of the chunk's right context too, which the next chunk computes again."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear layer for rows that lack a constant vector: `weight` [K, N] (transposed), `bias` [N].

    Adding a bias after `Addition` would be a separate step. Instead it is left out of the sum, and the bias of the next
    layer makes up for the vector `missing` in its input.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, *layers: nn.Linear | nn.Conv1d, missing: Tensor | None, like: Tensor) -> Projection:
        """The layers side by side (with one input; convolutions have length 1), whose input lacks `missing` [K]. With
        the dtype and on the device of `like`."""
        weight = torch.cat([layer.weight.detach().float().flatten(1) for layer in layers])
        bias = torch.cat([bias_of(layer) for layer in layers])
        if missing is not None:
            bias = bias + weight @ missing
        return cls(shared(weight.t(), like.device, like.dtype), shared(bias, like.device, like.dtype))

    def __call__(self, rows: Tensor) -> Tensor:
        return torch.addmm(self.bias, rows, self.weight)


@dataclass(frozen=True, slots=True)
class Addition:
    """A linear layer whose output is added to rows, without its bias: `weight` [K, N] (transposed)."""

    weight: Tensor

    @classmethod
    def of(cls, layer: nn.Linear | nn.Conv1d, *, like: Tensor) -> Addition:
        return cls(shared(layer.weight.detach().float().flatten(1).t(), like.device, like.dtype))

    def __call__(self, rows: Tensor, change: Tensor) -> Tensor:
        """Add the layer's output for `change` to `rows`, in place."""
        return rows.addmm_(change, self.weight)

    def beside(self, rows: Tensor, change: Tensor) -> Tensor:
        """`rows` plus the layer's output for `change`, in new memory."""
        return torch.addmm(rows, change, self.weight)


def bias_of(layer: nn.Linear | nn.Conv1d) -> Tensor:
    """The layer's bias, float32 [N]; zeros where it has none."""
    if layer.bias is None:
        return torch.zeros(layer.weight.shape[0])
    return layer.bias.detach().float()


def on(tensor: Tensor, like: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """A parameter on the device of `like`, in its dtype unless another is given."""
    return shared(tensor.contiguous(), like.device, dtype or like.dtype)


def embedding_projection(out: nn.Linear, bands: int, like: Tensor) -> Projection:
    """The projection after the convolutions, for channels last: inputs are [bands, channels] instead of [channels,
    bands]."""
    swapped = nn.Linear(out.in_features, out.out_features)
    weight = out.weight.detach().reshape(len(out.weight), -1, bands).transpose(1, 2).flatten(1)
    swapped.load_state_dict({"weight": weight, "bias": out.bias.detach()})
    return Projection.of(swapped, missing=None, like=like)
