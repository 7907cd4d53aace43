"""A `StreamRunner` whose networks are other models of the repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.audio.batched_fbank import BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.bundle.files import Precision
from moulin.bundle.spec import ModelSpec
from moulin.engine.onnxruntime.fbank import OnnxRuntimeFbank
from moulin.engine.stepper import StepLimits
from moulin.triton_repo.ensemble.remote_networks import RemoteNetwork, RemotePrediction


@dataclass(frozen=True)
class ComponentsSpec(ModelSpec):
    """The spec of a model whose networks are other models of the repository; only its tokens.txt is here."""

    tokens_file: Path

    @property
    def file(self) -> Path:
        return self.tokens_file

    @property
    def all_files(self) -> tuple[Path, ...]:
        return (self.tokens_file,)

    @property
    def precision(self) -> Precision:
        return "fp32"

    @property
    def size_bytes(self) -> int:
        return self.tokens_file.stat().st_size

    @property
    def max_frames(self) -> int | None:
        return None


class RemoteStreamRunner:
    """A `StreamRunner` that keeps the states of all streams, a row each, and sends those of a step with its windows."""

    def __init__(
        self,
        prediction: RemotePrediction,
        encoder: RemoteNetwork,
        *,
        state_size: int,
        feature_dim: int,
        capacity: int,
    ) -> None:
        self._prediction = prediction
        self._encoder = encoder
        self._states = np.zeros((capacity, state_size), np.float32)
        # One worker: the encoder's model takes one request after the other.
        self.limits = StepLimits(capacity, encoder.max_rows)
        self._fbank = OnnxRuntimeFbank(BatchedFbank(FbankOptions(num_mel_bins=feature_dim)), "cpu")

    @property
    def context_size(self) -> int:
        return self._prediction.context_size

    @property
    def skipped_ids(self) -> tuple[int, ...]:
        return self._prediction.skipped_ids

    def fbank(self, frames: Floats) -> Floats:
        return self._fbank(frames)

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        encoder_out, states = self._encoder(x, self._states[slots])
        self._states[slots] = states  # last, so that a failure leaves the states as they were
        return encoder_out

    def reset(self, slots: Ints) -> None:
        self._states[slots] = 0

    def decoder(self, y: Ints) -> Floats:
        return self._prediction.decoder(y)

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        return self._prediction.joiner(encoder_out, decoder_out)
