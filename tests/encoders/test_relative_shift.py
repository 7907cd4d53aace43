from __future__ import annotations

import pytest
import torch

from moulin.encoders.relative_shift import by_source


@pytest.mark.parametrize(("frames", "keys"), [(3, 5), (4, 4), (1, 6), (1, 1)])
def test_scores_by_distance_become_scores_by_frame(frames: int, keys: int) -> None:
    distances = torch.arange(-(keys - 1), frames).expand(2, 4, frames, -1)
    # Among the keys the queries' own frames are the last.
    expected = torch.arange(keys) - torch.arange(keys - frames, keys)[:, None]
    assert torch.equal(by_source(distances), expected.expand(2, 4, -1, -1))
