"""What the GPU engine of streams refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.engine.gpu_stream_runner import GpuStreamRunner
from moulin.errors import EngineError, OptionsError
from tests.bundles import BUNDLES


def test_refusals(device: torch.device) -> None:
    lstm = replace(load_checkpoint_spec(BUNDLES / "lstm-streaming", streaming=True), run_in="fp16")
    with pytest.raises(EngineError, match="does not know the lstm encoder of streams"):
        GpuStreamRunner(lstm, capacity=1, device=str(device))
    with pytest.raises(OptionsError, match="at least 1 of streams"):
        GpuStreamRunner(lstm, capacity=0, device=str(device))
