"""The relative shift of attention: from scores by distance to scores by frame, for all encoders."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def by_source(scores: Tensor) -> Tensor:
    """Scores by falling distance [N, heads, T, T + K - 1] to scores by the frame attended to, [N, heads, T, K].

    Row t needs its K columns from T - 1 - t on. Padding one column in front, laying all rows end to end and cutting off
    the first T values makes each row begin one column later than the row after it, so that no gather is needed.
    """
    frames, distances = scores.shape[2:]
    flat = functional.pad(scores, (1, 0)).flatten(2)[..., frames:]
    return flat.reshape_as(scores)[..., : distances - frames + 1]
