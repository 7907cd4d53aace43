"""What the host tells an engine that has the streams' states of a step, and what it hears of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints


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
    beams: NDArray[np.int32]
    """Hypotheses of modified beam search; 0 for greedy search."""
    decided: NDArray[np.int32]
    """The place of the beam whose hypothesis was decided for since the last step, -1 for none; it is in the first place
    from now on, and alone."""
    kept: NDArray[np.int32]
    """How many tokens that has."""


@dataclass(frozen=True, slots=True)
class SaidByBeams:
    """What modified beam search made of a chunk of N streams: the place int32 [N, P] that each hypothesis goes on from,
    `counts` int32 [N, P] of `tokens` int32, `frames` int32 (within the chunk) and `log_probs` float32 [N, P, T'] that
    it adds, and the scores of all that it says, float32 [N, P], -inf for a place that holds none."""

    origins: NDArray[np.int32]
    counts: NDArray[np.int32]
    tokens: NDArray[np.int32]
    frames: NDArray[np.int32]
    log_probs: Floats
    scores: Floats


@dataclass(frozen=True, slots=True)
class Said:
    """What greedy search has found in a chunk of each of B streams: `counts` int32 [B] of `tokens` int32, `frames`
    int32 (within the chunk) and `log_probs` float32 [B, T'], and what it adds to the score, float32 [B]. Where scores
    are not finite, the encoder's precision was not enough.

    `by_beams` is of those that asked for a beam, in their order, for whom the others mean nothing. `encoder_out`
    float32 [N, T', J] is that of the rows that were asked for.
    """

    counts: NDArray[np.int32]
    tokens: NDArray[np.int32]
    frames: NDArray[np.int32]
    log_probs: Floats
    scores: Floats
    by_beams: SaidByBeams
    encoder_out: Floats
