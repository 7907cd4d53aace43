"""Scores of attention by distance become scores by frame, for all encoders that attend by distance."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def by_source(scores: Tensor) -> Tensor:
    """Scores by falling distance [N, heads, T, T + K - 1] to scores by the frame that is looked at, [N, heads, T, K].

    Row t needs the columns from T - 1 - t on, in which the same frame is that much nearer. With one more column in
    front and the first T values cut off, all rows laid end to end, each row begins one column later than the one below.
    """
    frames, distances = scores.shape[2:]
    flat = functional.pad(scores, (1, 0)).flatten(2)[..., frames:]
    return flat.reshape_as(scores)[..., : distances - frames + 1]
