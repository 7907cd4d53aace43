"""The rewritten encoders against the exported ones."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from moulin.bundle.load import load_bundle
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.onnx_rewrites.swoosh import rewrite_swoosh, swoosh_by_softplus
from tests.bundles import BUNDLES, OFFLINE, STREAMING

# Layers 1, 2, 1 with six activations each but for what a recipe's sizes leave out, and four in front; as counted in
# the graphs.
SWOOSHES = {"zipformer2-offline": 24, "zipformer2-streaming": 24}


@pytest.mark.parametrize("name", [*OFFLINE, *STREAMING])
def test_counts(name: str) -> None:
    model = onnx.load(load_bundle(BUNDLES / name).encoder.file)
    before = len(model.graph.node)
    assert rewrite_swoosh(model) == SWOOSHES.get(name, 0)
    assert (len(model.graph.node) < before) == (name in SWOOSHES)
    onnx.checker.check_model(model)
    assert rewrite_swoosh(model) == 0


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_encoder_output_is_the_same(scale: float) -> None:
    spec = load_bundle(BUNDLES / "zipformer2-offline")
    rng = np.random.default_rng(0)
    x_lens = np.array([200, 150])
    x = (scale * rng.normal(-6, 4, (2, 200, spec.feature_dim))).astype(np.float32)
    plain, plain_lens = OnnxRuntimeRunner(spec, rewrite=False).encoder(x, x_lens)
    rewritten, lens = OnnxRuntimeRunner(spec).encoder(x, x_lens)
    np.testing.assert_array_equal(lens, plain_lens)
    for row, length in enumerate(lens):
        difference = np.linalg.norm(rewritten[row, :length] - plain[row, :length])
        assert difference <= 1e-5 * np.linalg.norm(plain[row, :length])


def test_int8_is_rewritten_too() -> None:
    """To within its rounding."""
    spec = load_bundle(BUNDLES / "zipformer2-offline", precision="int8")
    x = np.random.default_rng(0).normal(-6, 4, (1, 200, spec.feature_dim)).astype(np.float32)
    plain, _ = OnnxRuntimeRunner(spec, rewrite=False).encoder(x, np.array([200]))
    rewritten, _ = OnnxRuntimeRunner(spec).encoder(x, np.array([200]))
    assert 0 < np.abs(rewritten - plain).max() < 0.06 * np.abs(plain).max()


def swoosh_graph(*, infinity_guard: bool, offset: float = 4.0, constant: float = 0.035) -> onnx.ModelProto:
    """x to Swoosh(x), in one of the two forms that torch exports."""
    constants = {"offset": offset, "slope": 0.08, "c": constant, "one": 1.0, "zero": 0.0, "inf": np.inf}
    nodes = [
        helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
        for name, value in constants.items()
    ]
    if infinity_guard:
        steps = [
            ("Exp", ["z"], "e"),
            ("Add", ["e", "one"], "f"),
            ("Log", ["f"], "l"),
            ("Cast", ["l"], "lc"),
            ("Equal", ["lc", "inf"], "big"),
            ("Where", ["big", "z", "lc"], "softplus"),
        ]
    else:
        steps = [
            ("Max", ["zero", "z"], "m"),
            ("Sub", ["zero", "z"], "d"),
            ("Abs", ["d"], "a"),
            ("Neg", ["a"], "n"),
            ("Exp", ["n"], "e"),
            ("Add", ["one", "e"], "f"),
            ("Log", ["f"], "l"),
            ("Add", ["m", "l"], "softplus"),
        ]
    tail = [("Mul", ["x", "slope"], "kx"), ("Sub", ["softplus", "kx"], "s"), ("Sub", ["s", "c"], "y")]
    for op_type, inputs, output in [("Sub", ["x", "offset"], "z"), *steps, *tail]:
        if op_type == "Cast":
            nodes.append(helper.make_node(op_type, inputs, [output], to=TensorProto.FLOAT))
        else:
            nodes.append(helper.make_node(op_type, inputs, [output]))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy")
    graph = helper.make_graph(nodes, "swoosh", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("infinity_guard", [False, True])
def test_every_value(infinity_guard: bool) -> None:
    """Against the definition in float64, far beyond where exp overflows."""
    model = swoosh_graph(infinity_guard=infinity_guard)
    assert rewrite_swoosh(model) == 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.concatenate([np.linspace(-1000, 1000, 4001), np.linspace(-20, 20, 4001)]).astype(np.float32)
    wide = x.astype(np.float64)
    expected = np.logaddexp(0, wide - 4) - 0.08 * wide - 0.035
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("as_exported", ["by Icefall", "by Icefall, with a guard", "by moulin"])
def test_every_value_by_softplus(as_exported: str) -> None:
    model = swoosh_graph(infinity_guard="guard" in as_exported)
    if as_exported == "by moulin":
        rewrite_swoosh(model)
    assert swoosh_by_softplus(model) == 1
    assert [node.op_type for node in model.graph.node if node.op_type in ("Log", "Exp", "Sigmoid")] == []
    assert swoosh_by_softplus(model) == 0
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.concatenate([np.linspace(-1000, 1000, 4001), np.linspace(-20, 20, 4001)]).astype(np.float32)
    wide = x.astype(np.float64)
    expected = np.logaddexp(0, wide - 4) - 0.08 * wide - 0.035
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-6, atol=1e-5)


def test_what_only_looks_like_it_is_left_alone() -> None:
    """The inner sum is used elsewhere too: it must stay."""
    model = swoosh_graph(infinity_guard=False)
    model.graph.output.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, ["N"]))
    model.graph.node.append(helper.make_node("Identity", ["softplus"], ["other"]))
    assert rewrite_swoosh(model) == 0
