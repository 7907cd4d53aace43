"""Features of a batch of waveforms against kaldi-native-fbank and double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moulin.audio.decode import read_audio
from moulin.audio.fbank import Fbank, FbankOptions
from moulin.decoding.network import Floats
from moulin.demo.files import demo_clips
from moulin.gpu.kernels.fbank import FbankMatrices, fbank, fbank_plain

TAIL = 4800


@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_equals_kaldi(kind: type, device: torch.device) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4001)
    speech = [read_audio(clip.audio)[8000:28000] for clip in demo_clips()[:2]]
    waveforms: list[Floats] = [*speech, noise.astype(np.float32), np.full(1, 0.5, np.float32), np.zeros(0, np.float32)]
    scaled = [(w * 32767).astype(np.int16) if kind is np.int16 else w for w in waveforms]
    lengths = torch.tensor([len(waveform) for waveform in scaled], dtype=torch.int32, device=device)
    starts = (lengths.cumsum(0) - lengths).long()
    samples = torch.from_numpy(np.concatenate(scaled)).to(device)
    matrices = FbankMatrices(FbankOptions(), device)
    most = matrices.num_frames(20000 + TAIL) + 3
    ours = fbank(samples, starts, lengths, TAIL, most, matrices).cpu()
    plain = fbank_plain(samples, starts, lengths, TAIL, most, matrices).cpu()
    kaldi = Fbank()
    for row, waveform in enumerate(scaled):
        heard = waveform.astype(np.float32) / 32768 if kind is np.int16 else waveform
        wanted = torch.from_numpy(kaldi(np.concatenate([heard, np.zeros(TAIL, np.float32)])).copy())
        assert float((ours[row, : len(wanted)] - wanted).abs().max()) < 1e-3
        assert float((ours[row, : len(wanted)] - plain[row, : len(wanted)]).abs().max()) < 2e-3
