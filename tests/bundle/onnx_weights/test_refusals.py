"""Graphs that are not what they seem: what is refused, and that the message names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from moulin.bundle.load import load_bundle
from moulin.bundle.onnx_weights.load import OnnxWeights
from moulin.errors import BundleError

from .conftest import encoder_of
from .test_against_the_graph import changed


def before(graph: onnx.GraphProto, taken: str, op_type: str, values: object) -> None:
    """Put an elementwise node with a constant between the tensor `taken` and the nodes that take it."""
    for node in graph.node:
        node.input[:] = ["changed" if name == taken else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), "secret"))
    graph.node.insert(0, helper.make_node(op_type, [taken, "secret"], ["changed"], name="the_change"))


def scaled_features(graph: onnx.GraphProto) -> None:
    before(graph, "x", "Mul", np.full(80, 2.0))


def a_norm_of_the_features(graph: onnx.GraphProto) -> None:
    before(graph, "x", "Sub", np.full(80, -5.0))


def a_gain_after_a_layer(graph: onnx.GraphProto) -> None:
    (add,) = (node for node in graph.node if "encoder_proj.bias" in node.input)
    (matmul,) = (node for node in graph.node if node.output[0] in add.input)
    before(graph, matmul.input[0], "Mul", np.full(48, 2.0))
    graph.node.append(graph.node[0])
    del graph.node[0]


def another_operator(graph: onnx.GraphProto) -> None:
    next(node for node in graph.node if node.op_type == "Sigmoid").domain = "com.example"


def no_norm(graph: onnx.GraphProto) -> None:
    """Layer 0 without its norm at the end."""
    norms = [node for node in graph.node if node.op_type == "ReduceMean"]
    scaled = next(node for node in graph.node if "layers.0" in node.name and "norm_final/Mul_1" in node.name)
    assert norms
    scaled.op_type = "Identity"
    del scaled.input[1]


def not_finite(graph: onnx.GraphProto) -> None:
    tensor = next(tensor for tensor in graph.initializer if tensor.name == "encoder_proj.bias")
    values = numpy_helper.to_array(tensor).copy()
    values[3] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scaled_features, "'encoder.encoder_embed.conv.0.weight' as the only conv fed by 'x', got none"),
        (a_norm_of_the_features, "'encoder.encoder_embed.conv.0.weight' as the only conv fed by 'x', got none"),
        (a_gain_after_a_layer, "got none"),
        (another_operator, "Expected operators of ONNX in .*, got 'Sigmoid' of 'com.example'"),
        (no_norm, "'encoder.encoder.layers.0.norm_final.eps'|as the only"),
        (not_finite, "Expected finite numbers in the weights of .*, got others in 'joiner.encoder_proj.bias'"),
    ],
)
def test_another_network(change: Callable[[onnx.GraphProto], None], message: str, tmp_path: Path) -> None:
    def write(source: Path, to: Path) -> None:
        model = onnx.load(source)
        if "encoder" in source.name:
            change(model.graph)
        onnx.save(model, to)

    spec = changed("conformer-offline", tmp_path, write)
    with pytest.raises(BundleError, match=message):
        OnnxWeights(spec).transducer()


def test_positions_that_an_optimiser_has_multiplied_out(tmp_path: Path) -> None:
    """Of a streaming graph with a fixed chunk, the products of positions and weights are constants."""

    def folded(source: Path, to: Path) -> None:
        model = onnx.load(source)
        for node in model.graph.node:
            if "linear_pos" in node.name and node.op_type == "MatMul":
                node.op_type = "Identity"
                del node.input[0]
        onnx.save(model, to)

    spec = changed("zipformer2-streaming", tmp_path, folded)
    with pytest.raises(BundleError, match=r"'encoder.encoders.0.layers.0.self_attn_weights.linear_pos.weight'"):
        OnnxWeights(spec)


def test_a_decoder_of_another_form(tmp_path: Path) -> None:
    def without_relu(source: Path, to: Path) -> None:
        model = onnx.load(source)
        for node in model.graph.node:
            node.op_type = "Identity" if node.op_type == "Relu" else node.op_type
        onnx.save(model, to)

    spec = changed("conformer-offline", tmp_path, without_relu)
    with pytest.raises(BundleError, match="to have a ReLU in the decoder False, got True"):
        OnnxWeights(spec).transducer()


def test_an_encoder_of_another_family(tmp_path: Path) -> None:
    def called_lstm(source: Path, to: Path) -> None:
        model = onnx.load(source)
        for entry in model.metadata_props:
            entry.value = "lstm" if entry.key == "model_type" else entry.value
        onnx.save(model, to)

    spec = changed("zipformer-offline", tmp_path, called_lstm)
    with pytest.raises(BundleError, match=r"encoder.onnx to have 'encoder.encoder_embed.out_norm.eps'"):
        OnnxWeights(spec)


def test_weights_are_read_when_they_are_used() -> None:
    """And not copied: those of a file are views of it."""
    weights = OnnxWeights(load_bundle(encoder_of("zipformer2-offline")))
    array = weights.arrays["encoder.encoders.0.layers.0.feed_forward1.in_proj.weight"]
    assert isinstance(array, np.ndarray)
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
