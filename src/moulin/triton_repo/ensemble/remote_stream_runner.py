"""A `StreamEncoder` and a `StreamRunner` whose networks are other models of the repository."""

from __future__ import annotations

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.audio.batched_fbank import BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.engine.onnxruntime.fbank import OnnxRuntimeFbank
from moulin.engine.stepper import StepLimits
from moulin.triton_repo.ensemble.remote_networks import RemoteNetwork, RemotePrediction


class RemoteStreamEncoder:
    """A `StreamEncoder` that keeps the states of all streams, a row each, and sends those of a step with its
    windows."""

    def __init__(self, encoder: RemoteNetwork, *, state_size: int, feature_dim: int, capacity: int) -> None:
        self._encoder = encoder
        self._states = np.zeros((capacity, state_size), np.float32)
        # One worker: the encoder's model takes one request after the other.
        self.limits = StepLimits(capacity, encoder.max_rows)
        self._fbank = OnnxRuntimeFbank(BatchedFbank(FbankOptions(num_mel_bins=feature_dim)), "cpu")

    def fbank(self, frames: Floats) -> Floats:
        return self._fbank(frames)

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        *frames, states = self._encoder(x, self._states[slots])  # of a transducer with a CTC head also blank's
        self._states[slots] = states  # last, so that a failure leaves the states as they were
        return np.concatenate(frames, axis=-1)

    def reset(self, slots: Ints) -> None:
        self._states[slots] = 0


class RemoteStreamRunner:
    """A `StreamRunner` of both."""

    def __init__(self, encoder: RemoteStreamEncoder, prediction: RemotePrediction) -> None:
        self._encoder, self._prediction = encoder, prediction

    @property
    def limits(self) -> StepLimits:
        return self._encoder.limits

    @property
    def context_size(self) -> int:
        return self._prediction.context_size

    @property
    def skipped_ids(self) -> tuple[int, ...]:
        return self._prediction.skipped_ids

    def fbank(self, frames: Floats) -> Floats:
        return self._encoder.fbank(frames)

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        return self._encoder.encoder(x, slots)

    def reset(self, slots: Ints) -> None:
        self._encoder.reset(slots)

    def decoder(self, y: Ints) -> Floats:
        return self._prediction.decoder(y)

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        return self._prediction.joiner(encoder_out, decoder_out)
