"""A rewritten encoder runs only where it is the exported one."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest

from moulin.bundle.load import load_bundle
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.engine.onnxruntime import checked_rewrite
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from tests.bundles import BUNDLES, OFFLINE, STREAMING


@pytest.mark.parametrize("name", [*OFFLINE, *STREAMING])
def test_rewritten_encoders_pass(name: str, caplog: pytest.LogCaptureFixture) -> None:
    spec = load_bundle(BUNDLES / name)
    _, content = checked_rewrite.open_checked(
        spec.encoder, "cpu", 1, feature_dim=spec.feature_dim, precision="fp32", streaming=spec.streaming
    )
    assert caplog.text == ""
    assert content is not None


def one_weight_off(graph: OnnxGraph) -> bytes:
    model = onnx.load(graph.file)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] += 0.1
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", ["zipformer2-offline", "zipformer2-streaming"])
@pytest.mark.parametrize("rewritten", [one_weight_off, lambda _graph: b"no model"])
def test_another_encoder_does_not_run(
    name: str, rewritten: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so, and the file runs."""
    spec = load_bundle(BUNDLES / name)
    monkeypatch.setattr(checked_rewrite, "rewritten_encoder", lambda graph, *_: rewritten(graph))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        if spec.streaming:
            live, plain = OnnxRuntimeStreamRunner(spec), OnnxRuntimeStreamRunner(spec, rewrite=False)
            window = np.random.default_rng(0).normal(-6, 4, (1, spec.streaming.window_frames, spec.feature_dim))
            x, slots = window.astype(np.float32), np.array([0])
            np.testing.assert_array_equal(live.encoder(x, slots), plain.encoder(x, slots))
        else:
            x = np.random.default_rng(0).normal(-6, 4, (1, 200, spec.feature_dim)).astype(np.float32)
            lens = np.array([200])
            wanted, _ = OnnxRuntimeRunner(spec, rewrite=False).encoder(x, lens)
            np.testing.assert_array_equal(OnnxRuntimeRunner(spec).encoder(x, lens)[0], wanted)
    assert "runs as it was exported" in caplog.text
    assert len(caplog.records) == 1
