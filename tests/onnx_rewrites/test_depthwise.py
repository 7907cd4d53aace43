"""The encoders with two-dimensional depthwise convolutions against the exported ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from moulin.bundle.load import load_bundle
from moulin.bundle.onnx_graph import read_onnx_graph
from moulin.engine.onnxruntime.session import rewritten_encoder
from moulin.onnx_rewrites.depthwise import rewrite_depthwise, widen_depthwise
from moulin.onnx_rewrites.variants import in_half_precision
from tests.bundles import BUNDLES, OFFLINE, STREAMING


def depthwise_layers(model: onnx.ModelProto) -> int:
    """Counted by their names and attributes: grouped, with a kernel of one size."""
    attributes = [
        {attribute.name: attribute for attribute in node.attribute}
        for node in model.graph.node
        if node.op_type == "Conv"
    ]
    return sum(found["group"].i > 1 and len(found["kernel_shape"].ints) == 1 for found in attributes)


@pytest.mark.parametrize("name", [*OFFLINE, *STREAMING])
def test_every_depthwise_convolution_is_found_once(name: str) -> None:
    model = onnx.load(load_bundle(BUNDLES / name).encoder.file)
    expected = depthwise_layers(model)
    assert rewrite_depthwise(model) == expected
    onnx.checker.check_model(model)
    assert rewrite_depthwise(model) == 0


def test_how_many_zipformers_have() -> None:
    """Four layers with two modules each, and in a causal Zipformer2 two convolutions in each of these."""
    assert rewrite_depthwise(onnx.load(load_bundle(BUNDLES / "zipformer2-streaming").encoder.file)) == 16
    assert rewrite_depthwise(onnx.load(load_bundle(BUNDLES / "zipformer-streaming").encoder.file)) == 8


def graph(*, opset: int = 13, group: int = 6, shared: bool = False, stride: int = 1) -> onnx.ModelProto:
    """x [N, 6, T] through a convolution with a kernel of 5 and uneven padding."""
    weight = np.random.default_rng(0).normal(0, 1, (6, 6 // group, 5)).astype(np.float32)
    nodes = [
        helper.make_node(
            "Conv",
            ["x", "v" if shared else "w", "b"],
            ["y0"],
            group=group,
            kernel_shape=[5],
            pads=[3, 1],
            strides=[stride],
            dilations=[2],
        )
    ]
    if shared:
        nodes.insert(0, helper.make_node("Identity", ["w"], ["v"]))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6, "T"])],
            [helper.make_tensor_value_info("y0", TensorProto.FLOAT, ["N", 6, None])],
            [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(weight[:, 0, 0].copy(), "b")],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    model.ir_version = 8
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [9, 40])
def test_padding_stride_and_dilation_are_kept(frames: int, stride: int, shared: bool) -> None:
    x = np.random.default_rng(1).normal(0, 1, (2, 6, frames)).astype(np.float32)
    model = graph(stride=stride, shared=shared)
    wanted = run(model, x)
    assert rewrite_depthwise(model) == 1
    np.testing.assert_allclose(run(model, x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", [graph(opset=11), graph(group=1), graph(group=2)])
def test_what_is_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert rewrite_depthwise(model) == 0
    assert model.SerializeToString() == before


def convolved_in(model: onnx.ModelProto) -> list[int]:
    """The types that the convolutions over time compute in."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {value.name: value.type.tensor_type for value in (*inferred.graph.value_info, *inferred.graph.output)}
    kinds = [types[node.output[0]] for node in model.graph.node if node.op_type == "Conv"]
    return [kind.elem_type for kind in kinds if len(kind.shape.dim) == 3]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_half_precision_is_widened(stride: int, shared: bool) -> None:
    x = np.random.default_rng(1).normal(0, 1, (2, 6, 40)).astype(np.float32)
    wanted = run(graph(stride=stride, shared=shared), x)
    model = in_half_precision(graph(stride=stride, shared=shared))
    assert convolved_in(model) == [TensorProto.FLOAT16]
    assert widen_depthwise(model) == 1
    onnx.checker.check_model(model)
    assert convolved_in(model) == [TensorProto.FLOAT]
    np.testing.assert_allclose(run(model, x), wanted, rtol=5e-3, atol=5e-3)
    assert widen_depthwise(model) == 0


def test_single_precision_is_wide_enough() -> None:
    model = graph()
    before = model.SerializeToString()
    assert widen_depthwise(model) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("device", "kind"), [("cuda", TensorProto.FLOAT), ("cpu", TensorProto.FLOAT16)])
def test_encoders_are_widened_for_a_gpu_only(device: str, kind: int, tmp_path: Path) -> None:
    half = in_half_precision(onnx.load(load_bundle(BUNDLES / "conformer-offline").encoder.file))
    onnx.save(half, tmp_path / "encoder.onnx")
    content = rewritten_encoder(read_onnx_graph(tmp_path / "encoder.onnx"), "fp16", device)
    assert content is not None
    model = onnx.load_from_string(content)
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    found = {
        types[node.output[0]]
        for node in model.graph.node
        if node.op_type == "Conv" and any(one.name == "group" and one.i > 1 for one in node.attribute)
    }
    assert found == {kind}
