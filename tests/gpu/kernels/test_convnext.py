"""Zipformer2's ConvNeXt against its plain twin."""

from __future__ import annotations

import pytest
import torch

from moulin.encoders.zipformer2 import ConvNeXt
from moulin.gpu.kernels.convnext import ConvNeXtWeights, convnext, convnext_plain
from tests.gpu.compare import assert_close, within


@pytest.mark.parametrize("channels", [16, 20])
def test_convnext(channels: int, product_dtype: torch.dtype, device: torch.device) -> None:
    weights = ConvNeXtWeights.of(ConvNeXt(channels).to(device), device, product_dtype)
    lengths = torch.tensor([17, 3, 1], dtype=torch.int32, device=device)
    x = torch.randn(3, 17, 9, channels, device=device).to(product_dtype)
    assert_close(convnext(x, lengths, weights), convnext_plain(x, lengths, weights), where=within(17, lengths, axes=2))
