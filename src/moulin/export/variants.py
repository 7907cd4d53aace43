"""fp16 and int8 forms of exported files, made as Icefall's export scripts make them."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx

from moulin.export.to_onnx import OnnxFiles


def write_fp16(files: OnnxFiles) -> OnnxFiles:
    """Weights and arithmetic in half precision, inputs and outputs as they were: `*.fp16.onnx` beside the files."""
    written = _beside(files, ".fp16.onnx")
    for source, target in _pairs(files, written):
        onnx.save(in_half_precision(onnx.load(source)), target)
    return written


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with weights and arithmetic in half precision, inputs and outputs as they were."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with warnings.catch_warnings():
        # Values below the smallest of half precision become that: said once for each tensor.
        warnings.simplefilter("ignore")
        converted = convert_float_to_float16(model, keep_io_types=True)
    # It puts the nodes that convert inputs behind those that use them.
    OnnxModel(converted).topological_sort()
    return converted  # type: ignore[no-any-return]


def write_int8(files: OnnxFiles) -> OnnxFiles:
    """Dynamically quantised matrix products (in the decoder the embedding too): `*.int8.onnx` beside the files."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    written = _beside(files, ".int8.onnx")
    for source, target in _pairs(files, written):
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            whole = Path(scratch) / target.name
            quantize_dynamic(
                model_input=source,
                model_output=whole,
                op_types_to_quantize=["Gather", "MatMul"] if source == files.decoder else ["MatMul"],
                weight_type=QuantType.QInt8,
            )
            whole.replace(target)
    return written


def _beside(files: OnnxFiles, suffix: str) -> OnnxFiles:
    return OnnxFiles(*(file.with_name(file.stem + suffix) for file in (files.encoder, files.decoder, files.joiner)))


def _pairs(files: OnnxFiles, others: OnnxFiles) -> tuple[tuple[Path, Path], ...]:
    return (files.encoder, others.encoder), (files.decoder, others.decoder), (files.joiner, others.joiner)
