"""Exported encoders in the form that OpenVINO runs best."""

from __future__ import annotations

from moulin.bundle.onnx_graph import OnnxGraph
from moulin.onnx_rewrites.fixed_shapes import fix_shapes
from moulin.onnx_rewrites.mask_length import tell_mask_length_by_shape
from moulin.onnx_rewrites.merged_constants import merge_constants
from moulin.onnx_rewrites.strided_sizes import count_strided
from moulin.onnx_rewrites.swoosh import swoosh_by_softplus


def rewritten_for_openvino(encoder: OnnxGraph) -> bytes:
    """The ONNX model to compile."""
    import onnx

    model = onnx.load(encoder.file)
    tell_mask_length_by_shape(model)
    swoosh_by_softplus(model)
    merge_constants(model)
    count_strided(model)
    fix_shapes(model)
    return bytes(model.SerializeToString())
