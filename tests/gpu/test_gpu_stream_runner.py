"""The streaming runner on our GPU engine beside the one on plain modules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.engine.gpu_stream_runner import GpuStreamRunner
from moulin.engine.torch_stream_runner import TorchStreamRunner
from moulin.errors import EngineError, OptionsError
from tests.bundles import BUNDLES


def test_hears_what_the_plain_modules_hear(device: torch.device) -> None:
    """Two chunks of a stream, the second beside another's first; on a GPU also as graphs."""
    spec = load_checkpoint_spec(BUNDLES / "zipformer2-streaming", streaming=True)
    assert spec.streaming is not None
    ours = GpuStreamRunner(replace(spec, run_in="fp16"), capacity=3, device=str(device), max_batch=2)
    plain = TorchStreamRunner(spec, capacity=3)
    rng = np.random.default_rng(0)
    for slots in ([2], [0, 2]):
        size = (len(slots), spec.streaming.window_frames, spec.feature_dim)
        windows, at = rng.normal(-5, 3, size).astype(np.float32), np.array(slots)
        heard, wanted = ours.encoder(windows, at), plain.encoder(windows, at)
        assert np.abs(heard - wanted).max() < 3e-3 * np.abs(wanted).max()


def test_refusals(device: torch.device) -> None:
    lstm = replace(load_checkpoint_spec(BUNDLES / "lstm-streaming", streaming=True), run_in="fp16")
    with pytest.raises(EngineError, match="does not know the lstm encoder of streams"):
        GpuStreamRunner(lstm, capacity=1, device=str(device))
    with pytest.raises(OptionsError, match="at least 1 of streams"):
        GpuStreamRunner(lstm, capacity=0, device=str(device))
