"""Norms against their formulas in double precision."""

from __future__ import annotations

import numpy as np
import torch

from moulin.encoders.norms import BasicNorm, BiasNorm


def test_basic_norm() -> None:
    norm, x = BasicNorm(), torch.randn(3, 5, 16)
    norm.load_state_dict({"eps": torch.tensor(-1.5)})
    exact = x.double().numpy()
    wanted = exact / np.sqrt((exact**2).mean(axis=-1, keepdims=True) + np.exp(-1.5))
    np.testing.assert_allclose(norm(x).detach(), wanted, rtol=1e-5, atol=1e-6)


def test_bias_norm() -> None:
    norm, x = BiasNorm(16), torch.randn(3, 5, 16)
    bias = torch.randn(16)
    norm.load_state_dict({"log_scale": torch.tensor(0.7), "bias": bias})
    exact = x.double().numpy()
    rms = np.sqrt(((exact - bias.double().numpy()) ** 2).mean(axis=-1, keepdims=True))
    np.testing.assert_allclose(norm(x).detach(), exact * np.exp(0.7) / rms, rtol=1e-5, atol=1e-6)
