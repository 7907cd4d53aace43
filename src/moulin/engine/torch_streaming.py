"""What streaming runners of checkpoints have in common: all but the encoder's step."""

from __future__ import annotations

import torch

from moulin.audio.batched_fbank import EPSILON, BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import CheckpointSpec
from moulin.decoding.network import Floats
from moulin.engine.stream_runner import check_counts
from moulin.engine.torch_prediction import TorchPrediction


class TorchStreaming(TorchPrediction):
    """Features on the device of the encoder, and the limits of a `StreamRunner`."""

    def __init__(
        self,
        spec: CheckpointSpec,
        *,
        capacity: int,
        device: str,
        threads: int | None,
        max_batch: int | None,
        usual_max_batch: int,
    ) -> None:
        """`capacity` streams may be open, and `max_batch` of them, else `usual_max_batch`, go through the encoder
        together. Raises OptionsError, and as `TorchPrediction` does."""
        check_counts({"streams": capacity, "streams in a batch": max_batch})
        super().__init__(spec, device=device, threads=threads)
        self._capacity, self._max_batch = capacity, max_batch or usual_max_batch
        fbank = BatchedFbank(FbankOptions(num_mel_bins=spec.feature_dim))
        self._spectrum = torch.from_numpy(fbank.spectrum).to(self.device)
        self._mel = torch.from_numpy(fbank.mel).to(self.device)

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def max_batch(self) -> int:
        return self._max_batch

    def fbank(self, frames: Floats) -> Floats:
        with self._computing():
            energies = (torch.from_numpy(frames).to(self.device) @ self._spectrum).square() @ self._mel
            features: Floats = energies.clamp(min=EPSILON).log().cpu().numpy()
            return features
