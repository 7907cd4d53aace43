"""Half precision where it is enough, and single precision where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from moulin.bundle.load import load_bundle
from moulin.onnx_rewrites.variants import in_brain_precision, in_half_precision
from tests.bundles import BUNDLES

from .conftest import Exported

CHANNELS = 64


def encoded_distances(*, named: bool = True) -> onnx.ModelProto:
    """x [N, T] to the sines [T, 64] of the frames' numbers at 64 frequencies, times x."""
    frequencies = np.exp(np.arange(CHANNELS) * -(np.log(10000.0) / CHANNELS)).astype(np.float32)
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Shape", ["x"], "shape", {}),
        ("Gather", ["shape", "one"], "T", {"axis": 0}),
        ("Range", ["zero", "T", "one"], "frames", {}),
        ("Cast", ["frames"], "numbers", {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["numbers", "last"], "column", {}),
        ("Mul", ["column", "frequencies"], "angles", {}),
        ("Sin", ["angles"], "sines", {}),
        ("MatMul", ["x", "sines"], "y", {}),
    ]
    constants = {"zero": np.int64(0), "one": np.int64(1), "last": np.array([1]), "frequencies": frequencies}
    graph = helper.make_graph(
        [
            helper.make_node(kind, inputs, [output], name=f"node_{output}" if named else "", **attributes)
            for kind, inputs, output, attributes in steps
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CHANNELS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def one_frame(model: onnx.ModelProto, frame: int) -> np.ndarray:  # type: ignore[type-arg]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.zeros((1, frame + 1), np.float32)
    x[0, frame] = 1.0
    return session.run(["y"], {"x": x})[0][0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("frame", [3, 333, 3333, 70_000])
def test_angles_are_exact_however_distant_the_frame(frame: int, named: bool) -> None:
    model = encoded_distances(named=named)
    exact = one_frame(model, frame)
    np.testing.assert_allclose(one_frame(in_half_precision(model), frame), exact, atol=1e-3)


def test_only_the_angles_stay_in_single_precision() -> None:
    half = in_half_precision(encoded_distances())
    inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    [sine] = [node for node in half.graph.node if node.op_type == "Sin"]
    [product] = [node for node in half.graph.node if node.op_type == "MatMul"]
    assert types[sine.input[0]] == TensorProto.FLOAT
    assert {types[name] for name in product.input} == {TensorProto.FLOAT16}
    # x and y, the numbers of the frames, and the sines: nothing goes from one precision to another and back.
    assert sum(node.op_type == "Cast" for node in half.graph.node) == 4


def test_angles_of_exported_encoders(exported: Exported) -> None:
    """Those of the encoders that have any: the streaming Conformer's are constants."""
    for convert in (in_half_precision, in_brain_precision):
        model = convert(onnx.load(exported.files.encoder))
        onnx.checker.check_model(model)
        types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model)
        types |= {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
        for node in model.graph.node:
            if node.op_type in ("Sin", "Cos"):
                assert types[node.input[0]] == TensorProto.FLOAT, (exported.bundle, node.name)


@pytest.mark.parametrize("convert", [in_half_precision, in_brain_precision])
@pytest.mark.parametrize("bundle", ["conformer-streaming", "conformer-streaming-right2"])
def test_operators_that_stay_in_single_precision(bundle: str, convert: Any) -> None:
    model = convert(onnx.load(load_bundle(BUNDLES / bundle).encoder.file), single={"Softmax"})
    onnx.checker.check_model(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    takers = {name: node for node in model.graph.node for name in node.input}
    half = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    found = [node for node in model.graph.node if node.op_type == "Softmax"]
    assert len(found) == 3  # a layer
    for node in found:
        before, after = makers[node.input[0]], takers[node.output[0]]
        assert (before.op_type, before.attribute[0].i) == ("Cast", TensorProto.FLOAT)
        assert after.op_type == "Cast"
        assert after.attribute[0].i in half


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("bundle", ["conformer-streaming", "conformer-streaming-right2"])
def test_a_softmax_in_single_precision_computes_the_same(bundle: str, rows: int) -> None:
    """Against Icefall's graph in ONNX Runtime, for as many streams in any state."""
    spec = load_bundle(BUNDLES / bundle)
    assert spec.streaming is not None
    made = np.random.default_rng(rows)
    window = (rows, spec.streaming.window_frames, spec.feature_dim)
    inputs: dict[str, Any] = {spec.encoder.input("x", 0).name: made.normal(-6, 4, window).astype(np.float32)}
    for state in spec.streaming.states:
        shape = list(state.shape)
        shape[state.batch_axis] = rows
        inputs[state.name] = (
            made.normal(0, 1, shape).astype(np.float32)
            if state.dtype == "float32"
            else made.integers(0, 200, shape, np.int64)
        )
    graph = onnx.load(spec.encoder.file)
    theirs = unoptimised(graph).run(None, inputs)
    mixed = unoptimised(in_half_precision(graph, single={"Softmax"})).run(None, inputs)
    for found, wanted in zip(mixed, theirs, strict=True):
        assert np.linalg.norm(found - wanted) < 4e-3 * np.linalg.norm(wanted)


def unoptimised(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """With half precision on a CPU ONNX Runtime's optimiser fails."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def means_until_now(*, streaming: bool) -> onnx.ModelProto:
    """x [N, T] to the mean over each frame and all before it, as a causal Zipformer's pooling has it: of recordings, or
    of a stream that had `length` frames before, of the mean `average`."""
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Identity", ["x"], "values", {}),  # the converter leaves what takes an input or gives an output as it is
        ("CumSum", ["values", "axis"], "sums", {}),
        ("Shape", ["values"], "shape", {}),
        ("Gather", ["shape", "axis"], "T", {}),
        ("Add", ["T", "axis"], "behind", {}),
    ]
    if streaming:
        steps += [
            ("Cast", ["length"], "before", {"to": TensorProto.FLOAT}),
            ("Mul", ["average", "before"], "total", {}),
            ("Add", ["sums", "total"], "all", {}),
            ("Range", ["axis", "behind", "axis"], "frames", {}),
            ("Add", ["frames", "length"], "numbers", {}),
            ("Cast", ["numbers"], "counts", {"to": TensorProto.FLOAT}),
            ("Reciprocal", ["counts"], "weights", {}),
            ("Mul", ["all", "weights"], "means", {}),
        ]
    else:
        steps += [
            ("Cast", ["behind"], "limit", {"to": TensorProto.FLOAT}),
            ("Range", ["one", "limit", "one"], "counts", {}),
            ("Div", ["sums", "counts"], "means", {}),
        ]
    steps += [("Identity", ["means"], "y", {})]
    constants = {"axis": np.int64(1), "one": np.float32(1.0)}
    inputs: dict[str, list[str | int]] = {"x": ["N", "T"]}
    if streaming:
        inputs["average"] = ["N", 1]
    graph = helper.make_graph(
        [helper.make_node(kind, names, [output], **attributes) for kind, names, output, attributes in steps],
        "graph",
        [
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()),
            *([helper.make_tensor_value_info("length", TensorProto.INT64, [1])] if streaming else []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "T"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("frames", [16, 1_000, 70_000, 10_000_000])
def test_a_stream_of_many_frames_has_a_mean(frames: int) -> None:
    """By ONNX's own evaluator: ONNX Runtime computes half precision on a CPU in single precision."""
    half = ReferenceEvaluator(in_half_precision(means_until_now(streaming=True)))
    x, average = np.full((1, 16), 3.0, np.float32), np.array([[2.0]], np.float32)
    found: Any = half.run(None, {"x": x, "average": average, "length": np.array([frames])})
    counts = frames + np.arange(1, 17)
    np.testing.assert_allclose(found[0][0], (2 * frames + 3 * np.arange(1, 17)) / counts, rtol=1e-3)


@pytest.mark.parametrize("frames", [16, 6_000])
def test_a_long_recording_has_a_mean(frames: int) -> None:
    half = ReferenceEvaluator(in_half_precision(means_until_now(streaming=False)))
    found: Any = half.run(None, {"x": np.full((1, frames), 13.0, np.float32)})
    np.testing.assert_allclose(found[0][0], 13.0, rtol=1e-3)


@pytest.mark.parametrize("convert", [in_half_precision, in_brain_precision])
def test_sums_of_a_genuine_graph_stay_in_single_precision(convert: Any) -> None:
    model = convert(onnx.load(load_bundle(BUNDLES / "zipformer-streaming").encoder.file))
    onnx.checker.check_model(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    sums = [node for node in model.graph.node if node.op_type == "CumSum"]
    assert len(sums) == 4  # a layer
    assert [makers[node.input[0]].attribute[0].i for node in sums] == [TensorProto.FLOAT] * 4
