"""Networks made of the weights in ONNX files against ONNX Runtime on the files, and against the checkpoints that they
were exported from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, version_converter
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from moulin.arrays import Floats
from moulin.bundle.checkpoint import read_checkpoint
from moulin.bundle.load import load_bundle
from moulin.bundle.onnx_weights.integers import as_array
from moulin.bundle.onnx_weights.load import OnnxWeights
from moulin.bundle.spec import OnnxModelSpec
from moulin.bundle.transducer import load_transducer
from moulin.export.to_onnx import export_onnx
from tests.bundles import BUNDLES

from .conftest import ALL, encoder_of, largest_difference, outputs
from .single_precision import in_single_precision, with_weights_of

Change = Callable[[onnx.ModelProto], onnx.ModelProto]

CLOSE = 1e-4
FEW = ("zipformer2-offline", "zipformer2-streaming", "zipformer-offline", "conformer-offline", "lstm-streaming")


def changed(bundle: str, to: Path, change: Callable[[Path, Path], None]) -> OnnxModelSpec:
    """The bundle's fp32 files, each as `change` writes it."""
    encoder = encoder_of(bundle)
    (to / "tokens.txt").write_bytes((encoder.parent / "tokens.txt").read_bytes())
    for part in ("encoder", "decoder", "joiner"):
        change(encoder.with_name(encoder.name.replace("encoder", part)), to / f"{part}.onnx")
    return load_bundle(to)


def without_copies(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with a tensor of its own for each weight: of these tiny models some layers are equal, and the exporter
    writes one tensor for both, with which the quantisation makes invalid files."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type == "Identity" and node.input[0] in tensors:
            copy = model.graph.initializer.add()
            copy.CopyFrom(tensors[node.input[0]])
            copy.name = node.output[0]
            tensors[copy.name] = copy
            model.graph.node.remove(node)
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    for index, node in enumerate(model.graph.node):
        if node.op_type == "Gemm" and node.input[1] in constants:
            copy = model.graph.initializer.add()
            copy.CopyFrom(constants[node.input[1]].attribute[0].t)
            copy.name = node.input[1] = f"gemm_{index}"
    return model


def arrays_of(spec: OnnxModelSpec) -> dict[str, Floats]:
    return {name: as_array(values) for name, values in OnnxWeights(spec).arrays.items()}


@pytest.mark.parametrize("bundle", ALL)
def test_networks_compute_what_the_graphs_compute(bundle: str, features: Floats) -> None:
    spec = load_bundle(encoder_of(bundle))
    weights = OnnxWeights(spec)
    assert weights.family == spec.family == bundle.split("-", 1)[0]
    network = weights.transducer()
    assert largest_difference(spec, spec.encoder.file, network, features) < CLOSE

    rng = np.random.default_rng(0)
    y = rng.integers(0, spec.vocab_size, (9, spec.context_size))
    y[0] = [-1] * (spec.context_size - 1) + [0]
    decoded = outputs(spec.decoder.file, {"y": y})["decoder_out"]
    frames = rng.normal(0, 1, decoded.shape).astype(np.float32)
    logits = outputs(spec.joiner.file, {"encoder_out": frames, "decoder_out": decoded})["logit"]
    with torch.inference_mode():
        np.testing.assert_allclose(network.predict(torch.from_numpy(y)).numpy(), decoded, atol=CLOSE)
        ours = network.joiner(torch.from_numpy(frames), torch.from_numpy(decoded))
        np.testing.assert_allclose(ours.numpy(), logits, atol=CLOSE)


@pytest.mark.parametrize("bundle", ALL)
def test_parameters_are_those_of_the_checkpoint(bundle: str) -> None:
    """Up to rounding. The export folds an LSTM's two biases into one, and a Zipformer2's weights of frames, which are a
    softmax."""
    spec = load_bundle(encoder_of(bundle))
    wanted = read_checkpoint(BUNDLES / bundle / "epoch-1.pt").tensors
    found = arrays_of(spec)
    for name, values in found.items():
        expected = wanted[name]
        ours = torch.from_numpy(np.array(values))
        if name.endswith(".bias_ih_l0"):
            expected = expected + wanted[name.replace("_ih_", "_hh_")]
        elif name.endswith(".bias_hh_l0"):
            assert not ours.any()
            continue
        elif name.endswith(("downsample.bias", "downsample_output.bias")):
            expected, ours = expected.softmax(0), ours.softmax(0)
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
    needed = load_transducer([BUNDLES / bundle / "epoch-1.pt"]).tensors().keys()
    assert needed - found.keys() == {name for name in needed if name.startswith("ctc_output.")}


INT8: dict[str, dict[str, Any]] = {
    "as Icefall": {"op_types_to_quantize": ["MatMul"]},
    "by channel": {"weight_type": QuantType.QInt8, "per_channel": True, "op_types_to_quantize": ["MatMul", "Gemm"]},
    "convolutions too": {"weight_type": QuantType.QUInt8},
}


@pytest.mark.parametrize("options", INT8)
@pytest.mark.parametrize(
    "bundle", ["zipformer2-offline", "zipformer2-streaming", "conformer-offline", "lstm-streaming"]
)
def test_int8_files_have_the_weights_of_the_dequantised_graph(
    bundle: str, options: str, tmp_path: Path, features: Floats
) -> None:
    def quantise(source: Path, target: Path) -> None:
        plain = tmp_path / f"plain-{source.name}"
        onnx.save(without_copies(onnx.load(source)), plain)
        quantize_dynamic(plain, target, **INT8[options])
        plain.unlink()

    spec = changed(bundle, tmp_path, quantise)
    plain = in_single_precision(onnx.load(spec.encoder.file))
    network = OnnxWeights(spec).transducer()
    assert largest_difference(spec, plain, network, features) < CLOSE

    quantised = [numpy_helper.to_array(tensor) for tensor in plain.graph.initializer if tensor.name.endswith("_weight")]
    assert len(quantised) >= 6
    ours = list(arrays_of(spec).values())
    for weight in quantised:
        assert any(np.array_equal(values, weight.T) or np.array_equal(values, weight) for values in ours)


@pytest.mark.parametrize("bundle", FEW)
def test_fp16_files_have_the_weights_of_the_graph(bundle: str, tmp_path: Path, features: Floats) -> None:
    def convert(source: Path, target: Path) -> None:
        model = onnx.load(source)
        for node in model.graph.node:
            node.name = node.name or node.output[0]  # the converter goes by name
        onnx.save(convert_float_to_float16(model, keep_io_types=True), target)

    spec = changed(bundle, tmp_path, convert)
    halves = onnx.load(spec.encoder.file)
    network = OnnxWeights(spec).transducer()
    exact = onnx.load(encoder_of(bundle))
    assert largest_difference(spec, with_weights_of(halves, exact), network, features) < CLOSE

    ours = list(arrays_of(spec).values())
    for tensor in halves.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if tensor.name.startswith("onnx::MatMul") or "conv" in tensor.name:
            assert weight.dtype == np.float16
            assert any(np.array_equal(values, weight) or np.array_equal(values, weight.T) for values in ours), (
                tensor.name
            )


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without names that tell anything, and with the weights in another order."""
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    names: dict[str, str] = {"": ""}

    def name(old: str) -> str:
        return old if old in kept else names.setdefault(old, f"t{len(names)}")

    def rename(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            tensor.name = name(tensor.name)
        for node in graph.node:
            node.name = ""
            node.input[:] = map(name, node.input)
            node.output[:] = map(name, node.output)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    rename(attribute.g)
                    for output in attribute.g.output:
                        output.name = name(output.name)
        del graph.value_info[:]

    rename(model.graph)
    order = np.random.default_rng(0).permutation(len(model.graph.initializer))
    tensors = [model.graph.initializer[index] for index in order]
    shuffled = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    del model.graph.initializer[:]
    model.graph.initializer.extend(shuffled)
    return model


def with_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """With constants among the initializers, as other exporters write them."""
    for node in list(model.graph.node):
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            model.graph.node.remove(node)
    return model


CHANGES: dict[str, Change] = {
    "renamed": renamed,
    "constants as initializers": with_initializers,
    "opset 18": lambda model: version_converter.convert_version(model, 18),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("bundle", ALL)
def test_names_order_and_opset_change_nothing(bundle: str, change: str, tmp_path: Path) -> None:
    def write(source: Path, to: Path) -> None:
        onnx.save(CHANGES[change](onnx.load(source)), to)

    spec = changed(bundle, tmp_path, write)
    ours, wanted = arrays_of(spec), arrays_of(load_bundle(encoder_of(bundle)))
    assert ours.keys() == wanted.keys()
    for name, values in ours.items():
        assert np.array_equal(values, wanted[name]), name


def test_external_weights(tmp_path: Path) -> None:
    def outside(source: Path, to: Path) -> None:
        onnx.save(onnx.load(source), to, save_as_external_data=True, location=f"{to.name}.data", size_threshold=0)

    spec = changed("zipformer-streaming", tmp_path, outside)
    wanted = arrays_of(load_bundle(encoder_of("zipformer-streaming")))
    for name, values in arrays_of(spec).items():
        assert np.array_equal(values, wanted[name]), name


@pytest.mark.parametrize("bundle", ALL)
def test_our_own_exports(bundle: str, tmp_path: Path, features: Floats) -> None:
    """Of another network, which lowers activations, positions and shifts in another way."""
    source = load_bundle(encoder_of(bundle))
    network = OnnxWeights(source).transducer()
    layout = network.encoder.streaming_layout() if source.streaming else None
    export_onnx(network, tmp_path, "ours", layout)
    (tmp_path / "tokens.txt").write_bytes(source.files.tokens.read_bytes())
    spec = load_bundle(tmp_path)
    ours = OnnxWeights(spec)
    assert largest_difference(spec, spec.encoder.file, ours.transducer(), features) < CLOSE
    for name, tensor in network.tensors().items():
        assert np.allclose(as_array(ours.arrays[name]), tensor.numpy(), atol=1e-6), name


def test_a_family_that_the_file_does_not_name(tmp_path: Path) -> None:
    def unnamed(source: Path, to: Path) -> None:
        model = onnx.load(source)
        for entry in list(model.metadata_props):
            if entry.key == "model_type":
                model.metadata_props.remove(entry)
        onnx.save(model, to)

    spec = changed("conformer-offline", tmp_path, unnamed)
    assert spec.family == "unknown"
    weights = OnnxWeights(spec)
    assert weights.family == weights.transducer().encoder.family == "conformer"
