"""Streaming encoders with constants for shapes against the exported ones."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from moulin.bundle.load import load_bundle
from moulin.onnx_rewrites.fixed_shapes import fix_shapes
from tests.bundles import BUNDLES, OFFLINE, STREAMING


@pytest.mark.parametrize("name", STREAMING)
def test_every_batch_gives_the_same(name: str) -> None:
    spec = load_bundle(BUNDLES / name)
    assert spec.streaming is not None
    model = onnx.load(spec.encoder.file)
    sizes = sum(node.op_type == "Shape" for node in model.graph.node)
    assert (fix_shapes(model) > 0) == (sizes > 0)
    onnx.checker.check_model(model)
    assert sum(node.op_type == "Shape" for node in model.graph.node) <= sizes // 2
    exported = onnxruntime.InferenceSession(spec.encoder.file, providers=["CPUExecutionProvider"])
    fixed = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch in (1, 2, 3, 5):
        feeds = {"x": rng.normal(-6, 4, (batch, spec.streaming.window_frames, spec.feature_dim)).astype(np.float32)}
        for state in spec.streaming.states:
            shape = [batch if axis == state.batch_axis else size for axis, size in enumerate(state.shape)]
            values = rng.normal(0, 1, shape) if state.dtype == "float32" else rng.integers(0, 90, shape)
            feeds[state.name] = values.astype(state.dtype)
        for found, wanted in zip(fixed.run(None, feeds), exported.run(None, feeds), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OFFLINE)
def test_graphs_of_any_length_stay_as_they_are(name: str) -> None:
    model = onnx.load(load_bundle(BUNDLES / name).encoder.file)
    before = model.SerializeToString()
    assert fix_shapes(model) == 0
    assert model.SerializeToString() == before
