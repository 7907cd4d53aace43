"""Integer products in floating point against the same weights dequantised by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from moulin.arrays import Floats
from moulin.demo.files import DEMO_MODEL
from moulin.onnx_rewrites.float_products import multiply_in_float
from tests.bundle.onnx_weights.single_precision import in_single_precision
from tests.bundles import BUNDLES


def run(model: onnx.ModelProto, x: Floats, **more: object) -> Floats:
    """By the operators as they stand: optimised, ONNX Runtime rounds x for a product with a DequantizeLinear too."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    out: Floats = session.run(None, {"x": x, **more})[0]
    return out


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_product(tmp_path: Path, per_channel: bool, signed: bool) -> None:
    rng = np.random.default_rng(0)
    weight = (rng.normal(0, 1, (6, 5)) * rng.uniform(0.1, 3, 5)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "T", 5])],
        [numpy_helper.from_array(weight, "w")],
    )
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(plain, tmp_path / "plain.onnx")
    kind = QuantType.QInt8 if signed else QuantType.QUInt8
    quantize_dynamic(tmp_path / "plain.onnx", tmp_path / "int8.onnx", weight_type=kind, per_channel=per_channel)
    model = onnx.load(tmp_path / "int8.onnx")
    wanted = in_single_precision(model)
    assert multiply_in_float(model) == 1
    onnx.checker.check_model(model)
    assert {node.op_type for node in model.graph.node} == {"DequantizeLinear", "MatMul", "Relu"}
    x = rng.normal(0, 1, (2, 3, 6)).astype(np.float32)
    np.testing.assert_allclose(run(model, x), run(wanted, x), atol=1e-5)
    np.testing.assert_allclose(run(model, x), run(plain, x), atol=0.15)
    assert multiply_in_float(model) == 0


@pytest.mark.parametrize("folder", [BUNDLES / "zipformer2-offline", DEMO_MODEL])
def test_an_encoder(folder: Path) -> None:
    (file,) = folder.glob("encoder*.int8.onnx")
    model = onnx.load(file)
    wanted = in_single_precision(model)
    products = sum(node.op_type == "MatMulInteger" for node in model.graph.node)
    assert multiply_in_float(model) == products > 0
    assert not {"MatMulInteger", "DynamicQuantizeLinear"} & {node.op_type for node in model.graph.node}
    x, x_lens = np.random.default_rng(0).normal(-6, 4, (1, 130, 80)).astype(np.float32), np.array([130])
    np.testing.assert_allclose(run(model, x, x_lens=x_lens), run(wanted, x, x_lens=x_lens), atol=1e-3)


def test_what_is_left_alone() -> None:
    """Two quantised factors, as of attention, and a graph without any."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "q", "z", "z"], ["h"]),
        helper.make_node("Cast", ["h"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "s"], ["ss"]),
        helper.make_node("Mul", ["c", "ss"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
    )
    before = model.SerializeToString()
    assert multiply_in_float(model) == 0
    assert model.SerializeToString() == before
