"""Features of frames by PyTorch, on the device of the encoder."""

from __future__ import annotations

import torch

from moulin.audio.batched_fbank import EPSILON, BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.decoding.network import Floats


class TorchFbank:
    """`moulin.audio.batched_fbank.BatchedFbank` on a device."""

    def __init__(self, num_mel_bins: int, device: torch.device) -> None:
        fbank = BatchedFbank(FbankOptions(num_mel_bins=num_mel_bins))
        self._device = device
        self._spectrum = torch.from_numpy(fbank.spectrum).to(device)
        self._mel = torch.from_numpy(fbank.mel).to(device)

    def __call__(self, frames: Floats) -> Floats:
        """Features of frames float32 [N, L], samples in [-1, 1]: float32 [N, num_mel_bins]."""
        energies = (torch.from_numpy(frames).to(self._device) @ self._spectrum).square() @ self._mel
        features: Floats = energies.clamp(min=EPSILON).log().cpu().numpy()
        return features
