"""Features of a batch of waveforms against kaldi-native-fbank and double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.audio.fbank import Fbank, FbankOptions
from moulin.evaluate.manifest import demo_clips
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


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's, of NaN
@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_peaks(kind: type, device: torch.device) -> None:
    """Also of the first and the last sample, of NaN and of infinity, and with no tail."""
    waveforms: NDArray[Any] = np.zeros((5, 1003), kind)
    waveforms[0, 0], waveforms[1, -1] = -kind(3), kind(2)
    wanted = np.array([3, 2, 0, 0, 0], np.float32)
    if kind is np.int16:
        wanted /= 32768
    else:
        waveforms[2, 500], waveforms[3, 999], waveforms[3, 2] = -np.inf, -np.nan, np.inf
        wanted[2:4] = np.inf, np.nan
    lengths = torch.full((5,), 1003, dtype=torch.int32, device=device)
    peaks = torch.zeros(5, device=device)
    samples = torch.from_numpy(waveforms.ravel()).to(device)
    fbank(
        samples, (lengths.cumsum(0) - lengths).long(), lengths, 0, 8, FbankMatrices(FbankOptions(), device), None, peaks
    )
    np.testing.assert_array_equal(peaks.cpu().numpy(), wanted)
