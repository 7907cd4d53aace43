"""Pointwise convolutions in one dimension against the same in two."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from moulin.bundle.load import load_bundle
from moulin.onnx_rewrites.pointwise import rewrite_pointwise
from tests.bundles import BUNDLES, OFFLINE, STREAMING


@pytest.mark.parametrize("name", [*OFFLINE, *STREAMING])
def test_counts(name: str) -> None:
    """ConvNeXt has two; a layer's own pointwise convolutions are one-dimensional already."""
    model = onnx.load(load_bundle(BUNDLES / name).encoder.file)
    assert rewrite_pointwise(model) == (2 if name.startswith("zipformer2") else 0)
    onnx.checker.check_model(model)
    assert rewrite_pointwise(model) == 0


def graph(*, kernel: int = 1, bias: bool = True, opset: int = 13, **attributes: Any) -> onnx.ModelProto:
    """x [N, 6, T, 5] to y, of 4 channels."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 1, (4, 6 // attributes.get("group", 1), kernel, kernel)),
        "b": rng.normal(0, 1, 4),
    }
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", inputs, ["h"], **attributes), helper.make_node("Relu", ["h"], ["y"])],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6, "T", 5])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, "A", "B"])],
            [numpy_helper.from_array(value.astype(np.float32), key) for key, value in weights.items() if key in inputs],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "model",
    [
        graph(),
        graph(bias=False),
        graph(kernel_shape=[1, 1], pads=[0] * 4, strides=[1, 1], dilations=[1, 1], group=1),
    ],
)
def test_the_output_is_the_same(model: onnx.ModelProto, batch: int) -> None:
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    assert rewrite_pointwise(rewritten) == 1
    onnx.checker.check_model(rewritten)
    for frames in (1, 7):
        x = np.random.default_rng(1).normal(0, 1, (batch, 6, frames, 5)).astype(np.float32)
        np.testing.assert_allclose(run(rewritten, x), run(model, x), rtol=1e-5, atol=1e-5)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "model",
    [
        graph(kernel=3),
        graph(group=2),
        graph(strides=[1, 2]),
        graph(pads=[0, 1, 0, 1]),
        graph(auto_pad="SAME_UPPER"),
        graph(opset=12),
    ],
)
def test_what_is_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert rewrite_pointwise(model) == 0
    assert model.SerializeToString() == before
