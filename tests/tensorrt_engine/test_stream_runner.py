"""The streaming runner with the stand-in for TensorRT."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.bundle.load import load_bundle
from moulin.demo.files import demo_speech
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.errors import EngineError
from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan
from moulin.tensorrt_engine.stream_runner import TensorRtStreamRunner
from tests.bundles import BUNDLES
from tests.tensorrt_stand_in import StandIn

STREAMING = [f"{family}-streaming" for family in ("conformer", "zipformer", "zipformer2", "lstm")]


@pytest.mark.parametrize("name", STREAMING)
def test_a_streaming_encoder_keeps_its_states(name: str, tensorrt: StandIn) -> None:
    spec = load_bundle(BUNDLES / name)
    assert spec.streaming is not None
    plan = ready_plan(spec, device="cuda", speech=demo_speech, precision="fp32", max_batch=2)
    runner = TensorRtStreamRunner(spec, open_plan(spec, plan, device="cuda"), capacity=4)
    usual = OnnxRuntimeStreamRunner(spec, capacity=4, rewrite=False)
    random = np.random.default_rng(0)
    for step, slots in enumerate(([0], [3, 1, 0], [1], [0, 3], [1, 2])):
        x = random.normal(-6, 4, (len(slots), spec.streaming.window_frames, 80)).astype(np.float32)
        if step == 3:
            # A step that fails takes nobody further, not even those who were in its first part.
            tensorrt.failing = {"execute_async_v3"}
            with pytest.raises(EngineError, match="TensorRT failed on the whole pass"):
                runner.encoder(x, np.array(slots))
            tensorrt.failing = set()
        if step == 4:
            runner.reset(np.array([1]))
            usual.reset(np.array([1]))
        found, wanted = runner.encoder(x, np.array(slots)), usual.encoder(x, np.array(slots))
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 1e-4, step
