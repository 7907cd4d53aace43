from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from moulin.engine.exported_encoder import ExportedEncoder
from moulin.engine.host_pipeline import CtcPipeline
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.onnx_rewrites.mask_length import tell_mask_length_by_shape
from tests.bundles import BUNDLES

FOLDER = BUNDLES / "zipformer2-ctc-offline"


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_icefalls_ctc_export_takes_padding_beyond_the_longest() -> None:
    """The same frames as before where features end with the longest utterance; and where they go on too."""
    model = onnx.load(FOLDER / "model.onnx")
    plain = session(model)
    assert tell_mask_length_by_shape(model) == 1
    onnx.checker.check_model(model)
    told = session(model)
    x = np.random.default_rng(0).normal(-6, 3, (2, 120, 80)).astype(np.float32)
    lengths = np.array([120, 77])
    for wanted, found in zip(
        plain.run(None, {"x": x, "x_lens": lengths}), told.run(None, {"x": x, "x_lens": lengths}), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    shorter = np.array([100, 77])
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        plain.run(None, {"x": x, "x_lens": shorter})
    log_probs, counts = told.run(None, {"x": x, "x_lens": shorter})
    assert log_probs.shape[1] > counts.max()


@pytest.mark.parametrize(
    "file",
    [
        "zipformer2-ctc-offline/encoder-epoch-1-avg-1.onnx",
        "conformer-offline/encoder-epoch-1-avg-1.onnx",
        "zipformer2-ctc-streaming/ctc-epoch-1-avg-1-chunk-16-left-64.onnx",
    ],
)
def test_others_know_it_already(file: str) -> None:
    model = onnx.load(BUNDLES / file)
    before = model.SerializeToString()
    assert tell_mask_length_by_shape(model) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_is_shorter_than_an_engine_pads_to_is_heard(engine: Engine) -> None:
    """OpenVINO's runner pads to steps of 64 frames, and both to what an encoder runs with."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    waveform = 0.1 * np.random.default_rng(3).standard_normal(40_001, dtype=np.float32)
    with open_recognizer(FOLDER, EngineChoice(engine, head="ctc", threads=1)) as recognizer:
        assert isinstance(recognizer.pipeline, CtcPipeline)
        runner = recognizer.pipeline.runner
        assert isinstance(runner, ExportedEncoder)
        runner.min_frames = 400
        assert recognizer.transcribe([waveform])[0].text
