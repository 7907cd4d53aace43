"""Networks that are other models of the repository, for searches and steps of streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.triton_repo.ensemble.part import Ask


@dataclass(frozen=True)
class RemoteNetwork:
    """A network that is another model, called with at most `max_rows` rows at a time."""

    ask: Ask
    model: str
    inputs: tuple[tuple[str, str], ...]
    """Name and dtype of each input."""
    outputs: tuple[str, ...]
    max_rows: int

    @classmethod
    def read(cls, part: str, values: Mapping[str, str], ask: Ask) -> RemoteNetwork:
        """The network of the parameters of config.pbtxt that `ensemble.config` wrote."""
        inputs = (tensor.rsplit(":", 1) for tensor in values[f"{part}_inputs"].split(" "))
        return cls(
            ask,
            values[f"{part}_model"],
            tuple((name, dtype) for name, dtype in inputs),
            tuple(values[f"{part}_outputs"].split(" ")),
            int(values[f"{part}_max_rows"]),
        )

    def __call__(self, *values: Floats | Ints) -> list[Floats]:
        """Inputs [N, ...] to outputs float32 [N, ...]."""
        found = []
        for first in range(0, len(values[0]), self.max_rows):
            rows = slice(first, first + self.max_rows)
            tensors = {
                name: np.ascontiguousarray(value[rows], dtype)
                for (name, dtype), value in zip(self.inputs, values, strict=True)
            }
            found.append(self.ask(self.model, tensors, self.outputs))
        return [np.concatenate(parts).astype(np.float32, copy=False) for parts in zip(*found, strict=True)]


@dataclass(frozen=True)
class RemotePrediction:
    """A `PredictionNetwork` of the components `decoder` and `joiner`.

    Searches call it for whole batches: for the next frames of all utterances and hypotheses at once, not for one frame
    of one utterance at a time, as sherpa's scorer does.
    """

    decoder_network: RemoteNetwork
    joiner_network: RemoteNetwork
    context_size: int
    skipped_ids: tuple[int, ...]

    def decoder(self, y: Ints) -> Floats:
        return self.decoder_network(y)[0]

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        return self.joiner_network(encoder_out, decoder_out)[0]
