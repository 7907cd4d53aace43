"""Streaming runner on PyTorch, for checkpoints as they are."""

from __future__ import annotations

import torch

from moulin.arrays import Floats, Ints
from moulin.audio.batched_fbank import EPSILON, BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.bundle.checkpoint_spec import layout_of
from moulin.bundle.spec import CheckpointSpec
from moulin.engine.device import gpu_index
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_runner import check_counts
from moulin.engine.torch.prediction import TorchNetworks

_CPU_MAX_BATCH = 16
_CUDA_MAX_BATCH = 512


class TorchStreamRunner(TorchNetworks):
    """A `StreamRunner`: the encoder eagerly, and the states of all streams on its device, [capacity, ...] each."""

    def __init__(
        self,
        spec: CheckpointSpec,
        *,
        capacity: int,
        device: str = "cpu",
        threads: int | None = None,
        max_batch: int | None = None,
    ) -> None:
        """`capacity` streams may be open, and `max_batch` of them go through the encoder together.

        Raises OptionsError, and as `TorchNetworks` does.
        """
        check_counts({"streams": capacity, "streams in a batch": max_batch})
        super().__init__(spec, device=device, threads=threads)
        usual_max_batch = _CPU_MAX_BATCH if gpu_index(device) is None else _CUDA_MAX_BATCH
        self.limits = StepLimits(capacity, max_batch or usual_max_batch)
        fbank = BatchedFbank(FbankOptions(num_mel_bins=spec.feature_dim))
        self._spectrum = torch.from_numpy(fbank.spectrum).to(self.device)
        self._mel = torch.from_numpy(fbank.mel).to(self.device)
        layout = layout_of(self._transducer, spec.checkpoint)
        self._states = self._encoder.initial_states(layout, capacity, self.device)

    def fbank(self, frames: Floats) -> Floats:
        with self._computing():
            energies = (torch.from_numpy(frames).to(self.device) @ self._spectrum).square() @ self._mel
            features: Floats = energies.clamp(min=EPSILON).log().cpu().numpy()
            return features

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        with self._computing():
            rows = torch.from_numpy(slots).to(self.device)
            states = [state[rows] for state in self._states]
            encoder_out, following = self._encoder.streaming_forward(torch.from_numpy(x).to(self.device), states)
            projected = self._projected(encoder_out)
            for state, new in zip(self._states, following, strict=True):  # when nothing can fail any more
                state[rows] = new
            return projected

    def reset(self, slots: Ints) -> None:
        with self._computing():
            rows = torch.from_numpy(slots).to(self.device)
            for state in self._states:
                state[rows] = 0
