"""What the host tells an engine that has the streams' states of a step, and what it hears of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moulin.decoding.network import Floats, Ints


@dataclass(frozen=True, slots=True)
class Turns:
    """Which streams take part in a step, all different, and how far each is: arrays [B]."""

    slots: Ints
    numbers: NDArray[np.int32]
    """Chunks that each has had before."""
    heard: NDArray[np.int32]
    """Samples that are there of each one's window; see `moulin.gpu.kernels.stream_fbank`."""
    fresh: NDArray[np.bool_]
    """Whose search begins anew."""
    blank_penalties: Floats
    sharpness: Floats
    """One by the temperature."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a greedy search has found in a chunk of each of B streams: `counts` int32 [B] of `tokens` int32, `frames`
    int32 (within the chunk) and `log_probs` float32 [B, T']; `scores` float32 [B], not finite where the encoder's
    precision was not enough. `encoder_out` float32 [N, T', J] is that of the rows that were asked for.
    """

    counts: NDArray[np.int32]
    tokens: NDArray[np.int32]
    frames: NDArray[np.int32]
    log_probs: Floats
    scores: Floats
    encoder_out: Floats
