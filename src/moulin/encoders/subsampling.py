"""Convolutional subsampling, from one feature frame every 10 ms to one vector every 40 ms."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moulin.encoders.activations import DoubleSwish
from moulin.encoders.norms import BasicNorm
from moulin.encoders.recipe import NOTHING_SAID, Recipe, feature_dim_of
from moulin.encoders.tensors import expect_shape


@dataclass(frozen=True, slots=True)
class SubsamplingConfig:
    """`padding`: zeros around the first convolution's input, on all four sides: 1 for the Conformer, 0 for the LSTM."""

    feature_dim: int = 80
    channels: tuple[int, int, int] = (8, 32, 128)
    padding: int = 1

    @property
    def lost_frames(self) -> int:
        """T feature frames become (T - lost_frames) // 4 vectors, and so do the channels."""
        return 5 - 2 * self.padding

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], padding: int, recipe: Recipe = NOTHING_SAID
    ) -> SubsamplingConfig:
        """The sizes of `tensors`, which are named `encoder_embed.*`. Raises ValueError."""
        prefix = "encoder_embed"
        first, _, _, _ = expect_shape(tensors, f"{prefix}.conv.0.weight", (None, 1, 3, 3))
        second, _, _, _ = expect_shape(tensors, f"{prefix}.conv.3.weight", (None, first, 3, 3))
        third, _, _, _ = expect_shape(tensors, f"{prefix}.conv.6.weight", (None, second, 3, 3))
        _, width = expect_shape(tensors, f"{prefix}.out.weight", (None, None))
        if width % third:
            raise ValueError(f"expected '{prefix}.out.weight' to take a multiple of {third} channels, got {width}")
        feature_dim = feature_dim_of(recipe, 4 * (width // third) + 5 - 2 * padding)
        return cls(feature_dim, (first, second, third), padding)


class Conv2dSubsampling(nn.Module):
    """Three convolutions over time and frequency, the last two with stride 2, and a projection
    (pruned_transducer_stateless2/conformer.py, lstm_transducer_stateless2/lstm.py)."""

    def __init__(self, config: SubsamplingConfig, dim: int) -> None:
        super().__init__()
        first, second, third = config.channels
        self.lost_frames = config.lost_frames
        # Numbered as in Icefall, where a module used only in training precedes every activation.
        self.conv = nn.Sequential(
            OrderedDict[str, nn.Module](
                {
                    "0": nn.Conv2d(1, first, 3, padding=config.padding),
                    "2": DoubleSwish(),
                    "3": nn.Conv2d(first, second, 3, stride=2),
                    "5": DoubleSwish(),
                    "6": nn.Conv2d(second, third, 3, stride=2),
                    "8": DoubleSwish(),
                }
            )
        )
        self.out = nn.Linear(third * ((config.feature_dim - config.lost_frames) // 4), dim)
        self.out_norm = BasicNorm()

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, T, feature_dim] to [N, T', dim]."""
        x = self.conv(x.unsqueeze(1))
        return self.out_norm(self.out(x.transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]

    def lengths(self, x_lens: Tensor) -> Tensor:
        """The T' of utterances of T = `x_lens` frames, int64; 0 or less for utterances that are too short."""
        # Rounded towards zero as in ONNX's integer division: one operator, where rounding down takes six.
        return torch.div(x_lens - self.lost_frames, 4, rounding_mode="trunc")


def feed_forward(dim: int, hidden: int) -> nn.Sequential:
    """Two linear layers with a DoubleSwish between them, numbered as in Icefall (see Conv2dSubsampling)."""
    return nn.Sequential(
        OrderedDict[str, nn.Module]({"0": nn.Linear(dim, hidden), "2": DoubleSwish(), "4": nn.Linear(hidden, dim)})
    )


def count_layers(tensors: Mapping[str, Tensor]) -> int:
    """The number of layers `encoder.layers.<number>.*` in `tensors`, at least one."""
    numbers = (re.match(r"encoder\.layers\.(\d+)\.", name) for name in tensors)
    return max((int(number[1]) for number in numbers if number), default=0) + 1
