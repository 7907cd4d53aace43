"""Convolved features flattened channels last, against those that are flattened bands last."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from moulin.onnx_rewrites.channels_last import flatten_channels_last

CHANNELS, BANDS, WIDTH = 3, 5, 4


def graph(
    *, perm: tuple[int, ...] = (0, 2, 1, 3), rows: int = CHANNELS * BANDS, gives_out: bool = False
) -> onnx.ModelProto:
    """x [N, 1, T, bands], convolved to channels and flattened by frame, times a matrix."""
    rng = np.random.default_rng(0)
    weights = {"kernel": (CHANNELS, 1, 3, 3), "matrix": (rows, WIDTH)}
    initializers = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name) for name, shape in weights.items()
    ]
    initializers += [
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in {"from": [0], "to": [2], "rest": [-1]}.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["convolved"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["x", "convolved"], ["sum"]),
        helper.make_node("Transpose", ["sum"], ["by_frame"], perm=perm),
        helper.make_node("Shape", ["by_frame"], ["shape"]),
        helper.make_node("Slice", ["shape", "from", "to"], ["outer"]),
        helper.make_node("Concat", ["outer", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["by_frame", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["y"]),
    ]
    outputs: dict[str, list[str | int]] = {"y": ["N", "T", WIDTH], **({"flat": ["N", "T", rows]} if gives_out else {})}
    return helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "T", BANDS])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            initializers,
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )


def test_the_product_is_the_same() -> None:
    model, plain = graph(), graph()
    assert flatten_channels_last(model) == 1
    onnx.checker.check_model(model)
    x = np.random.default_rng(1).normal(size=(2, 1, 7, BANDS)).astype(np.float32)
    found, wanted = (
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for one in (model, plain)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert flatten_channels_last(model) == 0


@pytest.mark.parametrize("model", [graph(perm=(0, 2, 3, 1)), graph(rows=CHANNELS * BANDS + 1), graph(gives_out=True)])
def test_what_is_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert flatten_channels_last(model) == 0
    assert model.SerializeToString() == before
