"""What all encoders have in common."""

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

    `shape` is that of one stream, without a batch axis: our tensors have the batch first, [N, *shape]. Icefall's
    exports have it at `batch_axis`; `tensor.movedim(0, batch_axis)` turns ours into theirs.

    `increment` is for a counter that Icefall's export does not return (the Conformer's `processed_lens`): whoever runs
    the export adds it after every chunk. Ours returns it like the others.
    """

    name: str
    shape: tuple[int, ...]
    batch_axis: int
    dtype: torch.dtype = torch.float32
    increment: int = 0


@dataclass(frozen=True, slots=True)
class StreamingLayout:
    """How an encoder is fed chunk by chunk: `window_frames` features at a time, advancing by `chunk_frames`.

    `states` are in the order of Icefall's export, and so are the tensors that `streaming_forward` takes and returns.
    `metadata` is what Icefall's export writes into the ONNX file.
    """

    window_frames: int
    chunk_frames: int
    states: tuple[EncoderState, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


class Encoder(nn.Module, ABC):
    """Feature frames in, encoder frames of `output_dim` channels out, one for four feature frames.

    `family` is Icefall's `model_type`. Always in inference mode: there is no dropout and nothing to train.
    """

    family: str
    config: Any
    """A frozen dataclass of the encoder's sizes."""
    feature_dim: int
    output_dim: int
    recipe: Recipe = NOTHING_SAID
    """What was said of it beside its tensors."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> Self:
        """An encoder of the sizes that `tensors` have, with their values.

        `tensors` are the encoder's part of a checkpoint, without its prefix, with the factors of scaled parameters
        (`weight_scale`) multiplied in. What only training needs may be there and is left out. `recipe` says what no
        shape tells. Raises ValueError, saying which, where a tensor is missing or has no possible shape, and where
        `recipe` and the shapes contradict each other.
        """

    @abstractmethod
    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Whole utterances: features float32 [N, T, feature_dim], padded, and their lengths int64 [N], to
        encoder frames [N, T', output_dim] and their numbers int64 [N].

        What is in the padding changes no frame of an utterance more than Icefall's own encoder lets it.
        """

    def identity(self) -> dict[str, str]:
        """What every export of Icefall's says of its encoder."""
        return {"model_type": self.family, "version": "1", "model_author": "k2-fsa"}

    @abstractmethod
    def offline_metadata(self) -> Mapping[str, str]:
        """What Icefall's export of this encoder for whole utterances writes into the ONNX file."""

    @abstractmethod
    def streaming_layout(
        self, chunk_size: int | None = None, left_context_frames: int | None = None
    ) -> StreamingLayout:
        """The layout for chunks of `chunk_size` and attention over `left_context_frames` before them, both counted as
        the recipe's export script counts them; None takes what `self.recipe` says, else that script's default.

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
