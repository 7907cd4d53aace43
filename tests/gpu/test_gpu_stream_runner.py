"""What the GPU engine of streams refuses, and the memory that it counts with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.encoders.zipformer2 import CHUNK_SIZE, LEFT_CONTEXT_FRAMES
from moulin.engine.gpu.stream_runner import GpuStreamRunner, check_memory
from moulin.errors import EngineError, OptionsError
from moulin.gpu.stream_zipformer2 import GpuStreamZipformer2, values_a_stream
from tests.bundles import BUNDLES

from .test_stream_zipformer2 import load


def test_refusals(device: torch.device) -> None:
    lstm = replace(load_checkpoint_spec(BUNDLES / "lstm-streaming", streaming=True), run_in="fp16")
    with pytest.raises(EngineError, match="does not know the lstm encoder of streams"):
        GpuStreamRunner(lstm, capacity=1, device=str(device))
    with pytest.raises(OptionsError, match="at least 1 of streams"):
        GpuStreamRunner(lstm, capacity=0, device=str(device))


def test_more_streams_than_memory() -> None:
    check_memory(30_000_000_000, 20_000, 1_100_000, 1024)
    with pytest.raises(EngineError, match=r"30,000 streams of 1.10 MB and steps of 1,024 .* need 38.6 GB") as refused:
        check_memory(30_000_000_000, 30_000, 1_100_000, 1024)
    assert refused.value.hint == "--max-streams 22152"
    check_memory(30_000_000_000, 22_152, 1_100_000, 1024)
    with pytest.raises(EngineError, match="are free") as refused:
        check_memory(3_000_000_000, 1, 1_100_000, 1024)
    assert refused.value.hint == "a smaller --max-batch, or fewer --instances"


def test_a_streams_states_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    transducer, encoder = load("zipformer2-streaming")
    allocated: list[int] = []
    zeros = torch.zeros

    def counted(*size: int, **options: Any) -> torch.Tensor:
        tensor = zeros(*size, **options)
        if size[0] == 7:
            allocated.append(tensor.numel())
        return tensor

    monkeypatch.setattr(torch, "zeros", counted)
    GpuStreamZipformer2(
        encoder, transducer.joiner, capacity=7, max_batch=1, device=torch.device("cpu"), dtype=torch.float32
    )
    assert sum(allocated) == 7 * values_a_stream(encoder.config, CHUNK_SIZE, LEFT_CONTEXT_FRAMES)
