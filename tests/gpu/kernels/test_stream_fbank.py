"""Features of chunks from rings of audio, against the windows that the plain engine cuts."""

from __future__ import annotations

import numpy as np
import torch

from moulin.audio.fbank import Fbank, FbankOptions
from moulin.gpu.kernels.fbank import FbankMatrices
from moulin.gpu.kernels.stream_fbank import stream_fbank, stream_fbank_plain
from moulin.streaming.window_layout import WindowLayout

LAYOUT = WindowLayout(window_frames=45, chunk_frames=32, frame_length=400, frame_shift=160)
RING = 4 * LAYOUT.chunk


def test_equals_kaldi(device: torch.device) -> None:
    """Of a stream whose audio ends within a window, in the course of which its ring begins anew, beside a stream of
    fewer samples than a frame has; rings hold noise beyond the audio."""
    rng = np.random.default_rng(0)
    inbox = torch.from_numpy(rng.normal(0, 0.1, (3, RING)).astype(np.float32))
    if device.type == "cuda":
        inbox = inbox.pin_memory()
    long = rng.normal(0, 0.1, 27_000).astype(np.float32)
    short = rng.normal(0, 0.1, 130).astype(np.float32)
    matrices = FbankMatrices(FbankOptions(), device)
    silence = np.zeros(8000, np.float32)
    wanted = [Fbank()(np.concatenate([samples, silence])) for samples in (long, short)]
    given = 0
    for number in range(5):
        end = min(number * LAYOUT.chunk + LAYOUT.samples, len(long))
        while given < end:
            inbox[2, given % RING] = float(long[given])
            given += 1
        inbox[0, : len(short)] = torch.from_numpy(short)
        begin = number * LAYOUT.chunk - LAYOUT.overhang
        slots, numbers, heard = (
            torch.tensor(values, dtype=torch.int32, device=device)
            for values in ([2, 0], [number, 0], [min(len(long) - begin, LAYOUT.samples), 130 + LAYOUT.overhang])
        )
        ours = stream_fbank(inbox, slots, numbers, heard, LAYOUT, matrices).cpu()
        plain = stream_fbank_plain(inbox, slots, numbers, heard, LAYOUT, matrices).cpu()
        for row, (features, first) in enumerate(zip(wanted, (32 * number, 0), strict=True)):
            window = torch.from_numpy(features[first : first + 45].copy())
            assert float((ours[row] - window).abs().max()) < 1e-3
        assert float((ours - plain).abs().max()) < 2e-3
