"""`open_stream_recognizer`: the options that reach the chosen runner."""

from __future__ import annotations

from typing import Any

import pytest

from moulin.engine.gpu import stepper as gpu_stepper
from moulin.errors import EngineError
from moulin.models import open_stream_recognizer as opening
from moulin.models.engine_choice import EngineChoice
from tests.bundles import BUNDLES


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_cuda_graphs_of_the_gpu_engine(monkeypatch: pytest.MonkeyPatch, cuda_graphs: bool) -> None:
    asked: list[bool] = []

    def runner(*_: object, **options: Any) -> None:
        asked.append(options["cuda_graphs"])
        raise EngineError("no GPU")

    monkeypatch.setattr(opening, "check_gpu_engine", lambda _device: None)
    monkeypatch.setattr(gpu_stepper, "GpuStepper", runner)
    checkpoint = BUNDLES / "zipformer2-streaming" / "epoch-1.pt"
    with pytest.raises(EngineError, match="no GPU"):
        opening.open_stream_recognizer(checkpoint, EngineChoice(device="cuda", cuda_graphs=cuda_graphs))
    assert asked == [cuda_graphs]
