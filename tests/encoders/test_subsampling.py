from __future__ import annotations

import pytest
import torch

from moulin.encoders.subsampling import Conv2dSubsampling, SubsamplingConfig, count_layers


def _subsampling(padding: int, feature_dim: int = 23) -> Conv2dSubsampling:
    return Conv2dSubsampling(SubsamplingConfig(feature_dim, (2, 3, 4), padding), 8)


@pytest.mark.parametrize("padding", [0, 1])
def test_lengths_are_the_frames_of_utterances_alone(padding: int) -> None:
    subsampling = _subsampling(padding)
    lengths = torch.arange(9, 60)
    frames = [subsampling(torch.zeros(1, length, 23)).shape[1] for length in lengths.tolist()]
    assert subsampling.lengths(lengths).tolist() == frames


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("feature_dim", [20, 21, 22, 23, 80])
def test_sizes_come_from_the_tensors(padding: int, feature_dim: int) -> None:
    tensors = {f"encoder_embed.{name}": t for name, t in _subsampling(padding, feature_dim).state_dict().items()}
    found = SubsamplingConfig.from_tensors(tensors, padding)
    # Four neighbouring numbers of channels have the same shapes; the multiple of four is taken.
    assert found.feature_dim % 4 == 0
    assert abs(found.feature_dim - feature_dim) < 4
    again = Conv2dSubsampling(found, 8).state_dict()
    assert {f"encoder_embed.{name}": t.shape for name, t in again.items()} == {n: t.shape for n, t in tensors.items()}


def test_layers_are_counted_by_their_numbers() -> None:
    names = ("encoder.layers.0.a", "encoder.layers.11.a", "encoder.layers.2.b", "other.layers.20.a")
    assert count_layers(dict.fromkeys(names, torch.zeros(1))) == 12
    assert count_layers({}) == 1
