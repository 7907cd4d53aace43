"""The lengths that a model takes, against what ONNX Runtime really does at and beyond them."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL
from moulin.engine.host_pipeline import HostPipeline
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.recognizer import Recognizer
from moulin.errors import AudioError, EngineError
from tests.bundles import BUNDLES


@pytest.mark.parametrize(
    ("name", "max_frames"), [("conformer-offline", 20006), ("zipformer-offline", 10008), ("zipformer2-offline", 4008)]
)
def test_max_frames_comes_from_the_position_table(name: str, max_frames: int) -> None:
    assert load_bundle(BUNDLES / name).max_frames == max_frames


def test_encoder_runs_at_the_limit_and_fails_beyond_it() -> None:
    spec = load_bundle(BUNDLES / "zipformer2-offline")
    runner = OnnxRuntimeRunner(spec)
    assert spec.max_frames is not None

    def run(num_frames: int) -> int:
        x = np.zeros((1, num_frames, spec.feature_dim), np.float32)
        return int(runner.encoder(x, np.array([num_frames]))[1][0])

    assert run(spec.max_frames) == 1000
    with pytest.raises(EngineError, match="Reshape"):
        run(spec.max_frames + 1)


def test_recognizer_refuses_what_the_model_cannot_take_and_takes_what_it_can() -> None:
    spec = load_bundle(BUNDLES / "zipformer2-offline")
    limit = round((40.08 - 0.3) * 16000)
    with Recognizer(spec, HostPipeline(spec, OnnxRuntimeRunner(spec))) as recognizer:
        assert recognizer.transcribe([np.zeros(limit, np.float32)])[0].duration_sec == 39.78
        with pytest.raises(AudioError, match=r"at most 39\.8 s .* exported, got 40\.8 s"):
            recognizer.transcribe([np.zeros(limit + 16000, np.float32)])


def test_shortest_input_is_found_by_trying() -> None:
    """Causal Zipformers do not run with the nine frames that others do."""
    spec = load_bundle(DEMO_MODEL)
    runner = OnnxRuntimeRunner(spec)
    frames = np.random.default_rng(0).normal(-8, 3, (1, 20, spec.feature_dim)).astype(np.float32)
    encoder_out, lens = runner.encoder(frames, np.array([20]))
    assert lens.tolist() == [3]
    assert encoder_out.shape[1] >= 3
    with pytest.raises(EngineError, match="ConstantOfShape"):
        runner._run_encoder(frames, np.array([20]))
