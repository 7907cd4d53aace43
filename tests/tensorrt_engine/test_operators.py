from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from moulin.tensorrt_engine.operators import SUPPORTED, refusals


def model(*nodes: onnx.NodeProto, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    tensors = [helper.make_tensor_value_info(name, kind, ["N"]) for name in ("x", "y")]
    import numpy as np

    graph = helper.make_graph(
        nodes, "g", [tensors[0]], [tensors[1]], [numpy_helper.from_array(np.array([0]), name="axis")]
    )
    return helper.make_model(graph)


def test_what_is_taken() -> None:
    taken = model(
        helper.make_node("Constant", [], ["axes"], value_ints=[0]),
        helper.make_node("Unsqueeze", ["x", "axes"], ["a"]),
        helper.make_node("CumSum", ["a", "axis"], ["b"]),
        helper.make_node("Slice", ["b", "x", "x"], ["y"]),
    )
    assert refusals(taken) == []
    assert {"MatMul", "Conv", "Softmax", "GatherElements"} <= SUPPORTED
    assert not {"If", "Loop", "Scan", "NonZero", "SequenceEmpty"} & SUPPORTED


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("NonZero", ["x"], ["y"]), "1 NonZero (not among the operators that the parser takes)"),
        (helper.make_node("Loop", ["x"], ["y"]), "1 Loop (control flow, whose branches must have shapes that agree)"),
        (helper.make_node("CumSum", ["x", "x"], ["y"]), "1 CumSum (its input 1 must be a constant)"),
        (helper.make_node("Slice", ["x", "x", "x", "x"], ["y"]), "1 Slice (its input 3 must be a constant)"),
        (
            helper.make_node("BiasGelu", ["x"], ["y"], domain="com.microsoft"),
            "1 com.microsoft.BiasGelu (not an operator of ONNX)",
        ),
        (
            helper.make_node("MatMulInteger", ["x", "x"], ["y"]),
            "1 MatMulInteger (dynamic quantisation to integers, made for CPUs)",
        ),
    ],
)
def test_what_is_not(node: onnx.NodeProto, said: str) -> None:
    (refusal,) = refusals(model(node))
    assert str(refusal) == said
    (twice,) = refusals(model(node, node))
    assert twice.count == 2


def test_types() -> None:
    found = refusals(model(helper.make_node("Identity", ["x"], ["y"]), kind=TensorProto.STRING))
    assert [str(refusal) for refusal in found] == [
        "1 the tensor x (TensorRT has no type STRING)",
        "1 the tensor y (TensorRT has no type STRING)",
    ]
