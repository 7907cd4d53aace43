"""fp16 and int8 forms of exported files, made as Icefall's export scripts make them."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes  # ONNX's own
import numpy as np
import onnx
import onnx.numpy_helper

from moulin.bundle.onnx_files import OnnxFiles
from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes
from moulin.onnx_rewrites.graph_view import GraphView


def write_fp16(files: OnnxFiles) -> OnnxFiles:
    """Write `*.fp16.onnx` beside the files: weights and arithmetic in half precision, inputs and outputs unchanged."""
    return OnnxFiles(*map(fp16_beside, (files.encoder, files.decoder, files.joiner)))


def fp16_beside(source: Path) -> Path:
    """Write the fp16 form of the file `source` beside it."""
    target = source.with_name(f"{source.stem}.fp16.onnx")
    onnx.save(in_half_precision(onnx.load(source)), target)
    return target


def in_half_precision(model: onnx.ModelProto, *, single: Collection[str] = ()) -> onnx.ModelProto:
    """`model` with weights and arithmetic in half precision; inputs, outputs, `_angles`, `_running_means` and the
    operators called `single` are not converted."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    for node in model.graph.node:
        node.name = node.name or node.output[0]  # the converter skips nodes by name
    with warnings.catch_warnings():
        # The converter warns for each tensor that values are raised to the smallest of half precision.
        warnings.simplefilter("ignore")
        kept = [
            *_angles(model),
            *_running_means(model),
            *(node.name for node in model.graph.node if node.op_type in single),
        ]
        converted = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    _remove_round_trips(converted)
    # The converter puts the nodes that convert inputs after those that use them.
    OnnxModel(converted).topological_sort()
    return converted  # type: ignore[no-any-return]


def _angles(model: onnx.ModelProto) -> list[str]:
    """Names of the sines and cosines of encoded distances, and of the nodes that compute their angles.

    An angle of hundreds has steps of a quarter in half precision, and 65,504 is the largest: the encodings of the most
    distant frames were wrong by 0.2 for 15 seconds, by 2 for two minutes.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, onnx.NodeProto] = {}
    ahead = [node for node in model.graph.node if node.op_type in ("Sin", "Cos")]
    while ahead:
        node = ahead.pop()
        if node.name not in found:
            found[node.name] = node
            if node.op_type != "Cast":
                ahead += [makers[name] for name in node.input if name in makers]
    return list(found)


_SUMMED = {"Add", "Mul", "Div"}
_COUNTED = {*_SUMMED, "Reciprocal", "Range", "Unsqueeze", "Cast"}


def _running_means(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that compute means over all frames until now (the pooling of causal Zipformers): sums, and the
    counts that they are divided by.

    In half precision a count of 65,520 frames, of 22 minutes, is infinite, and one of 2,049 is not known to a frame; in
    bfloat16 one of 257.
    """
    view = GraphView(model)
    sums: dict[str, onnx.NodeProto] = {}
    ahead = [node for node in model.graph.node if node.op_type == "CumSum"]
    while ahead:
        node = ahead.pop()
        sums[node.name] = node
        ahead += [taker for output in node.output for taker in view.takers(output) if taker.op_type in _SUMMED]
    found = dict(sums)
    names = [name for node in sums.values() if node.op_type in _SUMMED for name in node.input]
    while names:
        maker = view.made_by(names.pop(), *_COUNTED)
        if maker is not None and maker.name not in found:
            found[maker.name] = maker
            names += maker.input if maker.op_type != "Cast" else ()
    return list(found)


def _remove_round_trips(model: onnx.ModelProto) -> None:
    """Remove casts to half precision and back between two nodes in single precision."""
    makers = {output: node for node in model.graph.node for output in node.output}

    def unrounded(name: str) -> str:
        back = makers.get(name)
        if back is None or not _casts_to(back, onnx.TensorProto.FLOAT):
            return name
        there = makers.get(back.input[0])
        # The model's own casts are never from single precision here: all of those became casts to half.
        return there.input[0] if there is not None and there.name.endswith("_cast_to_fp16_node") else name

    for node in model.graph.node:
        node.input[:] = [unrounded(name) for name in node.input]
    remove_dead_nodes(model)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(one.name == "to" and one.i == kind for one in node.attribute)


def in_brain_precision(model: onnx.ModelProto, *, single: Collection[str] = ()) -> onnx.ModelProto:
    """`model` in bfloat16, which has float32's range and three bits of precision less than half precision; operators
    called `single` are not converted.

    ONNX Runtime has no converter for it: the model is converted to half precision, then every type and weight replaced.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    half, brain = onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16
    # The conversion changes its argument; weights are taken from this copy.
    untouched = onnx.ModelProto()
    untouched.CopyFrom(model)
    converted = in_half_precision(untouched, single=single)
    for tensor in converted.graph.initializer:
        if tensor.data_type == half:
            tensor.CopyFrom(_brain(weights.get(tensor.name, tensor), tensor.name))
    for node in converted.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == half:
                attribute.t.CopyFrom(_brain(attribute.t, attribute.t.name))
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                attribute.i = brain
    for value in converted.graph.value_info:
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = brain
    return converted


def _brain(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
    return onnx.numpy_helper.from_array(values.astype(ml_dtypes.bfloat16), name)


def write_int8(files: OnnxFiles) -> OnnxFiles:
    """Write `*.int8.onnx` beside the files: dynamically quantised matrix products, and the decoder's embedding (the
    file whose name begins so)."""
    return OnnxFiles(*map(int8_beside, (files.encoder, files.decoder, files.joiner)))


def int8_beside(source: Path) -> Path:
    """Write the int8 form of the file `source` beside it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = source.with_name(f"{source.stem}.int8.onnx")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, _without_advice():
        whole = Path(scratch) / target.name
        quantize_dynamic(
            model_input=source,
            model_output=whole,
            op_types_to_quantize=["Gather", "MatMul"] if source.name.startswith("decoder") else ["MatMul"],
            weight_type=QuantType.QInt8,
        )
        whole.replace(target)
    return target


@contextmanager
def _without_advice() -> Iterator[None]:
    """Leave out what ONNX Runtime says on the root logger of each file: that its graph should be simplified first."""

    def is_no_advice(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Please consider")

    root = logging.getLogger()
    root.addFilter(is_no_advice)
    try:
        yield
    finally:
        root.removeFilter(is_no_advice)
