"""fp16 and int8 forms of exported files, made as Icefall's export scripts make them."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx

from moulin.export.to_onnx import OnnxFiles


def write_fp16(files: OnnxFiles) -> OnnxFiles:
    """Weights and arithmetic in half precision, inputs and outputs as they were: `*.fp16.onnx` beside the files."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    written = _beside(files, ".fp16.onnx")
    for source, target in _pairs(files, written):
        with warnings.catch_warnings():
            # Values below the smallest of half precision become that: said once for each tensor.
            warnings.simplefilter("ignore")
            model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
        onnx.save(model, target)
    return written


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
