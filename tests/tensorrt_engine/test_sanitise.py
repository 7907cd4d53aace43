"""Graphs for TensorRT compute the same as the exported ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.tensorrt_engine.build import prepare
from moulin.tensorrt_engine.operators import refusals
from moulin.tensorrt_engine.sanitise import inline_paddings, sanitise
from tests.bundles import BUNDLES, OFFLINE, STREAMING

# Odd and even numbers at every level of downsampling, and no utterance of which less is left than a frame.
LENGTHS = ([9], [10], [11], [13], [16], [57], [301], [200, 9, 57, 199])


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """As it is: with half precision on a CPU ONNX Runtime's own optimiser does not survive."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def features(length: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(-6, 4, (length, 80)).astype(np.float32)


@pytest.mark.parametrize("bundle", OFFLINE)
def test_whole_utterances(bundle: str) -> None:
    """Graphs as Icefall exports them, without editing zipformer.py."""
    model = onnx.load(load_bundle(BUNDLES / bundle).encoder.file)
    sanitised = sanitise(model)
    assert not refusals(sanitised)
    assert len(sanitised.graph.node) < 0.7 * len(model.graph.node)
    before, after = session(model), session(sanitised)
    for lengths in LENGTHS:
        x = np.zeros((len(lengths), max(lengths), 80), np.float32)
        for row, length in enumerate(lengths):
            x[row, :length] = features(length, row)
        inputs = {"x": x, "x_lens": np.array(lengths)}
        for theirs, ours in zip(before.run(None, inputs), after.run(None, inputs), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bundle", STREAMING)
def test_streams(bundle: str) -> None:
    spec = load_bundle(BUNDLES / bundle)
    assert spec.streaming is not None
    model = onnx.load(spec.encoder.file)
    sanitised = sanitise(model)
    assert not refusals(sanitised)
    before, after = session(model), session(sanitised)
    assert [tensor.name for tensor in before.get_inputs()] == [tensor.name for tensor in after.get_inputs()]
    rng = np.random.default_rng(0)
    inputs = {"x": np.stack([features(spec.streaming.window_frames, row) for row in range(3)])}
    for state in spec.streaming.states:
        shape = [3 if axis == state.batch_axis else size for axis, size in enumerate(state.shape)]
        whole = "int" in state.dtype
        inputs[state.name] = np.full(shape, 32, np.int64) if whole else rng.normal(0, 0.3, shape).astype(np.float32)
    for theirs, ours in zip(before.run(None, inputs), after.run(None, inputs), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def test_the_conditions_of_zipformer2_are_only_paddings() -> None:
    model = onnx.load(load_bundle(BUNDLES / "zipformer2-offline").encoder.file)
    assert [(found.what, found.count) for found in refusals(model)] == [("If", 2)]
    assert inline_paddings(model.graph) == 2
    assert "If" not in {node.op_type for node in model.graph.node}


def test_other_conditions_stay() -> None:
    def branch(operator: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["x"], ["z"])], operator, [], [output])

    condition = helper.make_node("If", ["c"], ["y"], then_branch=branch("Neg"), else_branch=branch("Identity"))
    graph = helper.make_graph(
        [condition],
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
    )
    assert inline_paddings(graph) == 0
    assert [node.op_type for node in graph.node] == ["If"]


@pytest.mark.parametrize("folder", [BUNDLES / "conformer-offline", DEMO_STREAMING_MODEL])
def test_half_precision_is_near(folder: Path) -> None:
    """Weights and arithmetic in the graph itself: TensorRT computes with the types that it finds."""
    spec = load_bundle(folder)
    exact, half = (session(prepare(spec, precision=precision, max_batch=2).model) for precision in ("fp32", "fp16"))
    inputs: dict[str, Any] = {}
    for tensor in exact.get_inputs():
        shape = [{"N": 2, "T": 100}.get(size, size) for size in tensor.shape]
        value = 100 if tensor.name == "x_lens" else 0
        inputs[tensor.name] = np.full(shape, value, np.int64 if "int" in tensor.type else np.float32)
    inputs["x"] = np.stack([features(inputs["x"].shape[1], row) for row in range(2)])
    expected, found = exact.run(None, inputs)[0], half.run(None, inputs)[0]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_int8_files_are_for_cpus() -> None:
    found = refusals(onnx.load(load_bundle(DEMO_MODEL).encoder.file))
    assert {refusal.what for refusal in found} >= {"DynamicQuantizeLinear", "MatMulInteger", "If"}
