"""Features of many streams' frames in PyTorch."""

from __future__ import annotations

import torch

from moulin.arrays import Floats
from moulin.audio.batched_fbank import EPSILON, BatchedFbank
from moulin.audio.fbank import FbankOptions


class TorchFbank:
    """`BatchedFbank` on a device."""

    def __init__(self, feature_dim: int, device: torch.device) -> None:
        fbank = BatchedFbank(FbankOptions(num_mel_bins=feature_dim))
        self._spectrum, self._mel = (torch.from_numpy(each).to(device) for each in (fbank.spectrum, fbank.mel))

    def __call__(self, frames: Floats) -> Floats:
        """Frames float32 [N, L], samples in [-1, 1], to features float32 [N, feature_dim]."""
        energies = (torch.from_numpy(frames).to(self._mel.device) @ self._spectrum).square() @ self._mel
        features: Floats = energies.clamp(min=EPSILON).log().cpu().numpy()
        return features
