"""Swoosh as one operator, against its definition in float64 and against its plain twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.engine.onnxruntime.operators import operators_library
from moulin.engine.onnxruntime.session import rewritten_encoder
from moulin.onnx_rewrites.merged_constants import merge_constants
from moulin.onnx_rewrites.swoosh import rewrite_swoosh
from moulin.onnx_rewrites.swoosh_operator import swoosh_in_one_operator, takes_operator
from moulin.onnx_rewrites.variants import in_half_precision
from tests.bundles import BUNDLES, OFFLINE, STREAMING
from tests.onnx_rewrites.test_swoosh import SWOOSHES, swoosh_graph

K, C = 0.08, 0.035


@pytest.fixture(scope="module")
def library() -> Path:
    found = operators_library()
    if found is None:
        pytest.skip("no C compiler")
    return found


def run(model: onnx.ModelProto, library: Path, x: Floats, threads: int = 1) -> Floats:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Floats = session.run(None, {"x": x})[0]
    return result


def layer(bias: Floats | None, *, of_a_product: bool = True, width: int = 5) -> onnx.ModelProto:
    """x times a matrix that changes nothing (or itself), the bias, and a Swoosh of seven operators."""
    head = [helper.make_node("MatMul" if of_a_product else "Mul", ["x", "weight"], ["product"])]
    weight = np.eye(width, dtype=np.float32) if of_a_product else np.ones(1, np.float32)
    constants = [numpy_helper.from_array(weight, "weight")]
    if bias is not None:
        head.append(helper.make_node("Add", ["bias", "product"], ["sum"]))
        constants.append(numpy_helper.from_array(bias, "bias"))
    model = swoosh_graph(infinity_guard=False)
    for node in model.graph.node:
        node.input[:] = [("product" if bias is None else "sum") if name == "x" else name for name in node.input]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*head, *rest])
    model.graph.initializer.extend(constants)
    for value in (*model.graph.input, *model.graph.output):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, None))
    assert rewrite_swoosh(model) == 1
    merge_constants(model)
    return model


def expected(z: Floats) -> Floats:
    wide = z.astype(np.float64) - 4
    value: Floats = np.logaddexp(0, wide) - K * (wide + 4) - C
    return value


def test_every_value(library: Path) -> None:
    """Far beyond where exp overflows."""
    model = swoosh_graph(infinity_guard=True)
    rewrite_swoosh(model)
    assert swoosh_in_one_operator(model) == 1
    assert [node.op_type for node in model.graph.node if node.op_type != "Constant"] == ["Sub", "Swoosh"]
    assert swoosh_in_one_operator(model) == 0
    x = np.concatenate([np.linspace(-1000, 1000, 40_001), np.linspace(-20, 20, 40_001)]).astype(np.float32)
    np.testing.assert_allclose(run(model, library, x), expected(x), rtol=5e-7, atol=5e-6)
    extremes = run(model, library, np.array([np.nan, np.inf, -np.inf, 3e38, -3e38], np.float32))
    assert np.isnan(extremes[0])
    assert (extremes[1], extremes[2]) == (np.inf, np.inf)
    np.testing.assert_allclose(extremes[3:], [0.92 * 3e38, 0.08 * 3e38], rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [0, 1, 15, 16_383, 16_384, 16_385, 100_003])
def test_every_size(library: Path, size: int, threads: int) -> None:
    model = swoosh_graph(infinity_guard=False)
    rewrite_swoosh(model)
    swoosh_in_one_operator(model)
    x = np.random.default_rng(size).normal(0, 5, size).astype(np.float32)
    np.testing.assert_allclose(run(model, library, x, threads), expected(x), rtol=5e-7, atol=5e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(5,), (0, 5), (3, 1, 5), (2, 2, 4001, 5)])
def test_bias_of_a_product(library: Path, shape: tuple[int, ...], threads: int) -> None:
    bias = np.arange(-2, 3, dtype=np.float32)
    model = layer(bias)
    assert swoosh_in_one_operator(model) == 1
    assert [node.op_type for node in model.graph.node if node.op_type != "Constant"] == ["MatMul", "Swoosh"]
    x = np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
    np.testing.assert_allclose(run(model, library, x, threads), expected(x + bias), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("bias", "of_a_product"),
    [
        (np.ones(1, np.float32), True),  # one number for all
        (np.ones((1, 5), np.float32), True),  # of more axes, which makes more of the sum
        (np.ones(5, np.float32), False),  # the sum may be wider than what is not a product
        (None, True),
    ],
)
def test_other_sums_stay(library: Path, bias: Floats | None, of_a_product: bool) -> None:
    model = layer(bias, of_a_product=of_a_product)
    assert swoosh_in_one_operator(model) == 1
    (swoosh,) = (node for node in model.graph.node if node.op_type == "Swoosh")
    assert len(swoosh.input) == 1
    x = np.random.default_rng(0).normal(0, 5, (3, 5)).astype(np.float32)
    np.testing.assert_allclose(
        run(model, library, x), expected(x + (0 if bias is None else bias)), rtol=1e-6, atol=1e-5
    )


def test_a_bias_of_another_length_is_refused(library: Path) -> None:
    node = helper.make_node("Swoosh", ["x", "b"], ["y"], domain="moulin", slope=K, constant=C)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    graph = helper.make_graph([node], "swoosh", [x], [y], [numpy_helper.from_array(np.zeros(4, np.float32), "b")])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("moulin", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="expects a bias"):
        run(model, library, np.zeros((3, 5), np.float32))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", [*OFFLINE, *STREAMING])
def test_all_of_an_encoder(name: str) -> None:
    content = rewritten_encoder(load_bundle(BUNDLES / name).encoder, "fp32", "cpu")
    assert content is not None
    operators = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert operators.count("Swoosh") == SWOOSHES.get(name, 0)


def test_half_precision_stays() -> None:
    model = onnx.load(load_bundle(BUNDLES / "zipformer2-offline").encoder.file)
    rewrite_swoosh(model)
    assert takes_operator(model)
    model = in_half_precision(model)
    assert not takes_operator(model)
    assert swoosh_in_one_operator(model) == 0
    rewritten = in_half_precision(onnx.load(load_bundle(BUNDLES / "zipformer2-offline").encoder.file))
    rewrite_swoosh(rewritten)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    onnxruntime.InferenceSession(rewritten.SerializeToString(), options, providers=["CPUExecutionProvider"])
