"""Features of single frames by kaldi-native-fbank."""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np

from moulin.arrays import Floats
from moulin.audio.fbank import FbankOptions, kaldi_options


def features_of(frames: Floats, options: FbankOptions) -> Floats:
    """Frame by frame: what comes out is bit for bit what the library makes of a recording."""
    snipping = kaldi_options(options)
    snipping.frame_opts.snip_edges = True
    features = []
    for frame in frames:
        extractor = knf.OnlineFbank(snipping)
        extractor.accept_waveform(options.sample_rate, frame.tolist())
        features.append(extractor.get_frame(0))
    return np.stack(features)
