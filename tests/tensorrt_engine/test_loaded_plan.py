"""Failures of TensorRT's runtime."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.bundle.load import load_bundle
from moulin.demo.files import demo_speech
from moulin.errors import EngineError
from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan
from moulin.tensorrt_engine.runner import TensorRtEncoder
from tests.bundles import BUNDLES
from tests.tensorrt_stand_in import StandIn


def test_a_failure_is_said_and_does_not_stay(tensorrt: StandIn) -> None:
    spec = load_bundle(BUNDLES / "conformer-offline")
    plan = ready_plan(spec, device="cuda", speech=demo_speech, max_batch=2, max_audio_sec=5)
    encoder = TensorRtEncoder(spec, open_plan(spec, plan, device="cuda"))
    x, lengths = np.zeros((1, 60, 80), np.float32), np.array([60])
    before, _ = encoder.encoder(x, lengths)
    tensorrt.failing = {"execute_async_v3"}
    with pytest.raises(EngineError, match=r"failed on the whole pass with .*plan: enqueue.* \(\)$"):
        encoder.encoder(x, lengths)
    tensorrt.failing = set()
    assert np.array_equal(encoder.encoder(x, lengths)[0], before)
