"""Sizes of strided slices that are computed, against those that are read off."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from moulin.onnx_rewrites.strided_sizes import count_strided

LAST = np.iinfo(np.int64).max


def graph(*, start: int = 0, end: int = LAST, axis: int = 1, step: int = 4, taken: int = 1) -> onnx.ModelProto:
    """x [N, T, 3] to the size `taken` of a slice of it."""
    values = {"start": [start], "end": [end], "axis": [axis], "step": [step], "taken": taken}
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Slice", ["x", "start", "end", "axis", "step"], ["cut"]),
                helper.make_node("Shape", ["cut"], ["shape"]),
                helper.make_node("Gather", ["shape", "taken"], ["y"], axis=0),
            ],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", 3])],
            [helper.make_tensor_value_info("y", TensorProto.INT64, [])],
            [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in values.items()],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )


def run(model: onnx.ModelProto, frames: int) -> int:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return int(session.run(None, {"x": np.zeros((2, frames, 3), np.float32)})[0])


@pytest.mark.parametrize("taken", [0, 1, 2])
@pytest.mark.parametrize("step", [2, 4, 8])
def test_the_size_is_the_same(step: int, taken: int) -> None:
    model, plain = graph(step=step, taken=taken), graph(step=step, taken=taken)
    assert count_strided(model) == 1
    onnx.checker.check_model(model)
    assert "Slice" not in [node.op_type for node in model.graph.node]
    for frames in range(1, 20):
        assert run(model, frames) == run(plain, frames)
    assert count_strided(model) == 0


@pytest.mark.parametrize("model", [graph(start=1), graph(end=5), graph(step=1), graph(axis=-2)])
def test_what_is_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert count_strided(model) == 0
    assert model.SerializeToString() == before
