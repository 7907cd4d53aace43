"""The base class of all encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from moulin.encoders.recipe import NOTHING_SAID, Recipe


@dataclass(frozen=True, slots=True)
class EncoderState:
    """One recurrent state of a streaming encoder, all zeros at the beginning of a stream.

    `shape` is that of one stream, without a batch axis: tensors of these modules are [N, *shape]. Icefall's exports
    have the batch at `batch_axis`; `tensor.movedim(0, batch_axis)` converts to their form.

    `increment` is for a counter that Icefall's export does not return (the Conformer's `processed_lens`): the caller of
    such an export adds it after every chunk. `streaming_forward` returns the counter like the other states.
    """

    name: str
    shape: tuple[int, ...]
    batch_axis: int
    dtype: torch.dtype = torch.float32
    increment: int = 0


@dataclass(frozen=True, slots=True)
class StreamingLayout:
    """Input and states of a streaming encoder: windows of `window_frames` features, each `chunk_frames` after the last.

    `states` are in the order of Icefall's export, and so are the tensors that `streaming_forward` takes and returns.
    `metadata` has the entries that Icefall's export writes into the ONNX file.
    """

    window_frames: int
    chunk_frames: int
    states: tuple[EncoderState, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


class Encoder(nn.Module, ABC):
    """A network from feature frames to encoder frames of `output_dim` channels, one for four feature frames.

    `family` is Icefall's `model_type`. For inference only: no dropout, no trainable parameters.
    """

    family: str
    config: Any
    """A frozen dataclass of the encoder's sizes."""
    feature_dim: int
    output_dim: int
    recipe: Recipe = NOTHING_SAID
    """Facts that its tensors do not determine."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> Self:
        """An encoder with the sizes and values of `tensors`.

        `tensors` are the encoder's part of a checkpoint, without its prefix, with the factors of scaled parameters
        (`weight_scale`) multiplied in. Tensors that only training needs are ignored. `recipe` has the facts that shapes
        do not determine. Raises ValueError, which names the tensor, where one is missing or has an impossible shape,
        and where `recipe` and the shapes contradict each other.
        """

    @abstractmethod
    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Whole utterances: features float32 [N, T, feature_dim], padded, and their lengths int64 [N], to
        encoder frames [N, T', output_dim] and their numbers int64 [N].

        The padding's content affects an utterance's frames no more than in Icefall's own encoder.
        """

    def identity(self) -> dict[str, str]:
        """The metadata that every Icefall export has about its encoder."""
        return {"model_type": self.family, "version": "1", "model_author": "k2-fsa"}

    @abstractmethod
    def offline_metadata(self) -> Mapping[str, str]:
        """The metadata that Icefall's offline export of this encoder writes into the ONNX file."""

    @abstractmethod
    def streaming_layout(
        self, chunk_size: int | None = None, left_context_frames: int | None = None
    ) -> StreamingLayout:
        """The layout for chunks of `chunk_size` and attention over `left_context_frames` before them, both counted as
        in the recipe's export script; None takes the value of `self.recipe`, else that script's default.

        Raises ValueError where the encoder was not trained for streaming or the sizes are impossible.
        """

    @abstractmethod
    def streaming_forward(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """One chunk of each of N streams: features [N, window_frames, feature_dim] and their states, to encoder
        frames [N, T', output_dim] and the next states."""

    @staticmethod
    def initial_states(layout: StreamingLayout, batch: int, device: torch.device | str = "cpu") -> list[Tensor]:
        """The states of `batch` streams at their beginning."""
        return [torch.zeros(batch, *state.shape, dtype=state.dtype, device=device) for state in layout.states]
