"""Up to the call of TensorRT, which no machine here has: a recorded fake stands for it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.demo.files import DEMO_MODEL
from moulin.errors import EngineError, OptionsError
from moulin.onnx_rewrites.variants import in_brain_precision
from moulin.tensorrt_engine.build import build_plan, prepare
from moulin.tensorrt_engine.builders import (
    TrtexecBuilder,
)

from .fake_trtexec import CONFORMER, trtexec


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    spec = load_bundle(CONFORMER)
    builder = TrtexecBuilder(trtexec(tmp_path, ends="exit 1"))
    with pytest.raises(EngineError):
        build_plan(spec, prepare(spec), tmp_path / "engines", builder, "g", "fp16")
    assert not list((tmp_path / "engines").iterdir())


def test_what_no_engine_is_built_from() -> None:
    with pytest.raises(OptionsError, match="is a checkpoint"):
        prepare(load_model(CONFORMER / "epoch-1.pt"))
    with pytest.raises(OptionsError, match=r"built from fp32 files, and .* is int8"):
        prepare(load_bundle(DEMO_MODEL))


def test_bf16_has_the_range_of_fp32(tmp_path: Path) -> None:
    spec = load_bundle(CONFORMER)
    model = prepare(spec, precision="bf16", max_seconds=3).model
    onnx.save(model, tmp_path / "bf16.onnx")
    onnx.checker.check_model(tmp_path / "bf16.onnx")
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.BFLOAT16 in types
    assert onnx.TensorProto.FLOAT16 not in types
    casts = {attribute.i for node in model.graph.node if node.op_type == "Cast" for attribute in node.attribute}
    assert onnx.TensorProto.FLOAT16 not in casts
    assert [tensor.type.tensor_type.elem_type for tensor in model.graph.input][:1] == [onnx.TensorProto.FLOAT]
    huge = onnx.helper.make_tensor("huge", onnx.TensorProto.FLOAT, [1], [3e30])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["a", "huge"], ["b"])],
        "g",
        [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1])],
        [huge],
    )
    converted = in_brain_precision(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)]))
    (weight,) = converted.graph.initializer
    assert onnx.numpy_helper.to_array(weight).astype(float)[0] == pytest.approx(3e30, rel=0.01)
