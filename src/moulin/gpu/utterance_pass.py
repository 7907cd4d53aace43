"""Passes of whole utterances, for the compilation of their kernels: no audio, no streams of the card."""

from __future__ import annotations

import torch

from moulin.audio.fbank import FbankOptions
from moulin.decoding.options import DecodingOptions
from moulin.gpu.arena import AutomatonArena
from moulin.gpu.encoder import GpuEncoder
from moulin.gpu.kernel_compiler import META
from moulin.gpu.kernels.beam import beam_search
from moulin.gpu.kernels.fbank import FbankMatrices, fbank
from moulin.gpu.kernels.greedy import greedy
from moulin.gpu.kernels.searches import FoundTensors
from moulin.gpu.pipeline import Rows
from moulin.gpu.predictor import Predictor

_ROWS = (1, 2, 4)
"""Batches whose rows of `counts` begin at each alignment that there is."""
_FRAMES = (32, 96, 160, 224, 512)
"""Some even and some odd numbers of frames after subsampling."""


def utterance_passes(encoder: GpuEncoder, predictor: Predictor, *, tail_samples: int) -> None:
    """Launch what `moulin.gpu.pipeline` launches for batches of all kinds, on `META`, where the parts are too."""
    matrices = FbankMatrices(FbankOptions(num_mel_bins=encoder.feature_dim), META)
    with torch.inference_mode():
        for rows in _ROWS:
            for frames in _FRAMES:
                _pass(encoder, predictor, matrices, rows, frames, tail_samples)


def _pass(
    encoder: GpuEncoder, predictor: Predictor, matrices: FbankMatrices, rows: int, frames: int, tail_samples: int
) -> None:
    rates = encoder.counts_of(frames).shape[0]
    counts = torch.empty(rates, rows, dtype=torch.int32, device=META)
    features = torch.empty(rows, frames, encoder.feature_dim, device=META)
    batch = Rows.empty(rows, rates, device=META)
    for dtype in (torch.float32, torch.int16):
        samples, peaks = torch.empty(16_000, dtype=dtype, device=META), torch.empty(rows, device=META)
        fbank(samples, batch.starts, batch.lengths, tail_samples, frames, matrices, features, peaks)
    out = encoder(features, counts)
    encoder_out = out[..., : predictor.joiner_dim].clone(memory_format=torch.contiguous_format)
    found = FoundTensors.empty(rows, encoder_out.shape[1], 1, META)
    arguments = encoder_out, batch.counts[-1], batch.options, predictor, found
    for automata in (None, AutomatonArena(META, rows=1).tables):
        beam_search(*arguments, automata, beam=DecodingOptions().beam)
    greedy(*arguments)
