"""Graphs in eight bits as graphs in single precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.onnx_rewrites.dequantised import dequantise
from tests.bundles import BUNDLES

QUANTISED = {"MatMulInteger", "DynamicQuantizeLinear"}


def product(*, per_channel: bool, folder: Path, unsigned: bool = False) -> tuple[onnx.ModelProto, Floats]:
    """x [N, 16] times a matrix, plus a bias, quantised by ONNX Runtime's own tool; and the matrix."""
    weight = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.ones(8, np.float32), "b")],
    )
    plain, target = folder / "plain.onnx", folder / "int8.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), plain)
    kind = QuantType.QUInt8 if unsigned else QuantType.QInt8
    quantize_dynamic(plain, target, op_types_to_quantize=["MatMul"], weight_type=kind, per_channel=per_channel)
    return onnx.load(target), weight


def run(model: onnx.ModelProto, **feeds: Floats) -> Floats:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_are_those_of_the_file(tmp_path: Path, per_channel: bool, unsigned: bool) -> None:
    model, weight = product(per_channel=per_channel, folder=tmp_path, unsigned=unsigned)
    assert dequantise(model) == 1
    onnx.checker.check_model(model)
    assert not QUANTISED & {node.op_type for node in model.graph.node}
    found = run(model, x=np.eye(16, dtype=np.float32)) - 1
    steps = np.abs(weight).max(axis=0 if per_channel else None) / 127
    assert np.all(np.abs(found - weight) <= 0.51 * steps * (1 + unsigned))
    assert dequantise(model) == 0


def test_a_result_that_something_else_takes_too_is_left_alone(tmp_path: Path) -> None:
    model, _ = product(per_channel=False, folder=tmp_path)
    (integers,) = (node.output[0] for node in model.graph.node if node.op_type == "MatMulInteger")
    model.graph.output.append(helper.make_tensor_value_info(integers, TensorProto.INT32, ["N", 8]))
    assert dequantise(model) == 0


def test_an_export() -> None:
    """All of it; as far from the file as the rounding of activations, which is left out."""
    file = load_bundle(BUNDLES / "zipformer2-offline", precision="int8").encoder.file
    model = onnx.load(file)
    quantised = [node.op_type for node in model.graph.node].count("MatMulInteger")
    assert dequantise(model) == quantised > 0
    onnx.checker.check_model(model)
    assert not QUANTISED & {node.op_type for node in model.graph.node}
    x = np.random.default_rng(0).normal(-6, 4, (1, 200, model.graph.input[0].type.tensor_type.shape.dim[2].dim_value))
    feeds = {"x": x.astype(np.float32), "x_lens": np.array([200])}
    exact, rounded = run(model, **feeds), run(onnx.load(file), **feeds)
    assert 0 < np.abs(exact - rounded).max() < 0.06 * np.abs(exact).max()
