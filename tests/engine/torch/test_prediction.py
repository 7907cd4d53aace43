"""Devices, and failures of PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.engine.host_stepper import HostStepper
from moulin.engine.torch.stream_runner import TorchStreamRunner
from moulin.errors import EngineError
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from tests.engine.torch.checkpoints import checkpoint


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(EngineError, match=r"Expected a GPU cuda:7, PyTorch .* finds \d GPUs"):
        open_recognizer(checkpoint("conformer-offline"), EngineChoice(device="cuda:7"))


def test_what_pytorch_refuses_is_an_engine_error() -> None:
    recognizer = open_stream_recognizer(checkpoint("lstm-streaming"), max_streams=1)
    assert isinstance(recognizer.stepper, HostStepper)
    assert isinstance(recognizer.stepper.runner, TorchStreamRunner)
    with pytest.raises(EngineError, match="PyTorch failed on cpu"):
        recognizer.stepper.runner.encoder(np.zeros((1, 9, 7), np.float32), np.array([0]))
