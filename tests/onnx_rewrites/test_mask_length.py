from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from moulin.onnx_rewrites.mask_length import tell_mask_length_by_shape
from tests.bundles import BUNDLES

FOLDER = BUNDLES / "zipformer2-ctc-offline"


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_icefalls_ctc_export_takes_padding_beyond_the_longest() -> None:
    """The same frames as before where features end with the longest utterance; and where they go on too."""
    model = onnx.load(FOLDER / "model.onnx")
    plain = session(model)
    assert tell_mask_length_by_shape(model, x="x", x_lens="x_lens") == 1
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


@pytest.mark.parametrize("name", ["encoder-epoch-1-avg-1.onnx"])
def test_transducers_know_it_already(name: str) -> None:
    model = onnx.load(Path(FOLDER / name))
    before = model.SerializeToString()
    assert tell_mask_length_by_shape(model, x="x", x_lens="x_lens") == 0
    assert model.SerializeToString() == before
