"""Offline runner on PyTorch, for checkpoints as they are."""

from __future__ import annotations

import numpy as np
import torch

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import PADDING_VALUE
from moulin.bundle.spec import MIN_FRAMES
from moulin.engine.batching import CPU_BATCH_FRAMES, GPU_BATCH_FRAMES
from moulin.engine.torch.prediction import TorchNetworks


class TorchRunner(TorchNetworks):
    """A `Runner` whose encoder runs eagerly, operator by operator."""

    @property
    def max_batch_frames(self) -> int:
        return CPU_BATCH_FRAMES if self.device.type == "cpu" else GPU_BATCH_FRAMES

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:  # noqa: ARG002
        missing = MIN_FRAMES - x.shape[1]
        if missing > 0:
            x = np.pad(x, ((0, 0), (0, missing), (0, 0)), constant_values=PADDING_VALUE)
        with self._computing():
            features = torch.from_numpy(x).to(self.device)
            encoder_out, lengths = self._encoder(features, torch.from_numpy(x_lens).to(self.device))
            return self._projected(encoder_out), lengths.cpu().numpy()
