"""The batch of Zipformer2's encoded positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from moulin.bundle.load import load_bundle
from moulin.onnx_rewrites.position_batch import state_position_batch
from moulin.onnx_rewrites.positions import compute_positions
from moulin.tensorrt_engine.sanitise import fold_constants
from tests.bundles import BUNDLES, OFFLINE, STREAMING

from .conftest import Exported

# A layer has one.
PLACES = {"zipformer2-offline": 4, "zipformer2-streaming": 4}


@pytest.mark.parametrize("bundle", [*OFFLINE, *STREAMING])
def test_it_is_stated_once_a_layer(bundle: str) -> None:
    model = fold_constants(onnx.load(load_bundle(BUNDLES / bundle).encoder.file))
    before = len(model.graph.node)
    assert state_position_batch(model) == PLACES.get(bundle, 0)
    assert (len(model.graph.node) < before) == (bundle in PLACES)
    assert state_position_batch(model) == 0
    onnx.checker.check_model(model)


def test_our_own_exports_leave_it_out(exported: Exported) -> None:
    """Their positions have no batch."""
    model = fold_constants(onnx.load(exported.files.encoder))
    assert state_position_batch(model) == 0


@pytest.mark.parametrize("of_any_length", [False, True])
def test_it_computes_the_same(of_any_length: bool) -> None:
    """Bit by bit: the same numbers, reshaped alike."""
    graph = onnx.load(load_bundle(BUNDLES / "zipformer2-offline").encoder.file)
    if of_any_length:
        assert compute_positions(graph)
    folded = fold_constants(graph)
    theirs = session(folded)
    assert state_position_batch(folded) == 4
    ours = session(folded)
    for rows, frames in ((1, 9), (1, 10), (2, 57), (3, 130), (4, 301)):
        x = np.random.default_rng(frames).normal(-6, 4, (rows, frames, 80)).astype(np.float32)
        inputs = {"x": x, "x_lens": np.arange(frames, frames - rows, -1)}
        for found, wanted in zip(ours.run(None, inputs), theirs.run(None, inputs), strict=True):
            np.testing.assert_array_equal(found, wanted)


def session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
