"""Graphs with merged constants against the same graphs as they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from moulin.bundle.load import load_bundle
from moulin.onnx_rewrites.merged_constants import merge_constants
from moulin.onnx_rewrites.swoosh import rewrite_swoosh
from tests.bundles import BUNDLES

RNG = np.random.default_rng(0)
WEIGHTS: dict[str, Any] = {
    "w": RNG.normal(0, 1, (5, 5)),
    "b": RNG.normal(0, 1, 5),
    "kernel": RNG.normal(0, 1, (5, 5, 3)),
    "one": 1.5,
    "two": 2.5,
}


def graph(*nodes: tuple[str, list[str], str, dict[str, Any]]) -> onnx.ModelProto:
    """x [N, 5, 5] to y, by nodes of an operator, inputs, an output and attributes."""
    read = {name for _, inputs, _, _ in nodes for name in inputs}
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in nodes],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5, 5])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "C", "T"])],
            [
                numpy_helper.from_array(np.array(value, np.float32), name)
                for name, value in WEIGHTS.items()
                if name in read
            ],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )


LINEAR: list[tuple[str, list[str], str, dict[str, Any]]] = [
    ("MatMul", ["x", "w"], "p", {}),
    ("Add", ["b", "p"], "h", {}),
]


@pytest.mark.parametrize(
    ("nodes", "merged"),
    [
        pytest.param(
            [*LINEAR, ("Sub", ["h", "one"], "z", {}), ("Relu", ["z"], "y", {})], 1, id="behind a linear layer"
        ),
        pytest.param(
            [
                ("Conv", ["x", "kernel"], "h", {"pads": [1, 1]}),
                ("Sub", ["h", "one"], "z", {}),
                ("Relu", ["z"], "y", {}),
            ],
            1,
            id="behind a convolution without bias",
        ),
        pytest.param(
            [
                ("Conv", ["x", "kernel", "b"], "h", {}),
                ("Transpose", ["h"], "t", {"perm": [0, 2, 1]}),
                ("Sub", ["t", "one"], "z", {}),
                ("Relu", ["z"], "y", {}),
            ],
            1,
            id="behind a transposed convolution",
        ),
        pytest.param(
            [
                ("Conv", ["x", "kernel", "b"], "h", {"pads": [1, 1]}),
                ("Add", ["h", "x"], "s", {}),
                ("Sub", ["s", "one"], "z", {}),
                ("Relu", ["z"], "y", {}),
            ],
            1,
            id="behind a sum with a convolution",
        ),
        pytest.param(
            [
                ("Relu", ["x"], "r", {}),
                ("Sub", ["r", "one"], "z", {}),
                ("MatMul", ["z", "w"], "p", {}),
                ("Add", ["p", "b"], "y", {}),
            ],
            1,
            id="before a linear layer",
        ),
        pytest.param(
            [
                ("Relu", ["x"], "r", {}),
                ("Sub", ["r", "one"], "z", {}),
                ("Transpose", ["z"], "t", {"perm": [0, 2, 1]}),
                ("Conv", ["t", "kernel", "b"], "y", {}),
            ],
            1,
            id="before a convolution",
        ),
        pytest.param(
            [
                *LINEAR,
                ("Sub", ["h", "one"], "z", {}),
                ("Relu", ["z"], "r", {}),
                ("Sub", ["r", "two"], "s", {}),
                ("Conv", ["s", "kernel", "b"], "y", {}),
            ],
            2,
            id="both",
        ),
        pytest.param(
            [
                ("Relu", ["x"], "r", {}),
                ("Sub", ["r", "one"], "z", {}),
                ("Conv", ["z", "kernel", "b"], "y", {"pads": [1, 1]}),
            ],
            0,
            id="before a convolution with padding, which would be another number",
        ),
        pytest.param(
            [*LINEAR, ("Sub", ["h", "one"], "z", {}), ("Mul", ["z", "h"], "y", {})],
            0,
            id="the sum is taken elsewhere too",
        ),
        pytest.param(
            [("Relu", ["x"], "r", {}), ("Sub", ["r", "one"], "z", {}), ("MatMul", ["z", "w"], "y", {})],
            0,
            id="before a layer without bias",
        ),
        pytest.param([*LINEAR, ("Sub", ["h", "one"], "y", {})], 0, id="the graph's own output"),
        pytest.param([*LINEAR, ("Sub", ["h", "b"], "z", {}), ("Relu", ["z"], "y", {})], 0, id="not a number"),
        pytest.param(
            [("Add", ["x", "x"], "h", {}), ("Sub", ["h", "one"], "z", {}), ("Relu", ["z"], "y", {})], 0, id="no layer"
        ),
    ],
)
def test_the_output_is_the_same(nodes: list[tuple[str, list[str], str, dict[str, Any]]], merged: int) -> None:
    model = graph(*nodes)
    x = np.random.default_rng(1).normal(0, 1, (2, 5, 5)).astype(np.float32)
    wanted = run(model, x)
    assert merge_constants(model) == merged
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run(model, x), wanted, rtol=1e-5, atol=1e-5)
    assert sum(node.op_type == "Sub" for node in model.graph.node) == sum(kind == "Sub" for kind, *_ in nodes) - merged
    assert merge_constants(model) == 0


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["zipformer2-offline", "zipformer2-streaming"])
def test_a_swoosh_keeps_hardly_any_of_its_numbers(name: str) -> None:
    """All but that of the last activation before ConvNeXt, whose convolution has padding."""
    model = onnx.load(load_bundle(BUNDLES / name).encoder.file)
    swooshes = rewrite_swoosh(model)
    assert merge_constants(model) >= 2 * swooshes - 1
