"""Exported encoders in the form that OpenVINO runs best."""

from __future__ import annotations

from moulin.bundle.onnx_graph import OnnxGraph
from moulin.errors import EngineError
from moulin.onnx_rewrites.channels_last import flatten_channels_last
from moulin.onnx_rewrites.dequantised import dequantise
from moulin.onnx_rewrites.fixed_shapes import fix_shapes
from moulin.onnx_rewrites.mask_length import tell_mask_length_by_shape
from moulin.onnx_rewrites.merged_constants import merge_constants
from moulin.onnx_rewrites.relative_shift import shift_without_gather
from moulin.onnx_rewrites.strided_sizes import count_strided
from moulin.onnx_rewrites.swoosh import swoosh_by_softplus

_QUANTISED = {"MatMulInteger", "ConvInteger", "DynamicQuantizeLinear", "QLinearMatMul", "QLinearConv"}
"""OpenVINO 2026.4 ends the process on some of these."""


def rewritten_for_openvino(encoder: OnnxGraph) -> bytes:
    """The ONNX model to compile, all of it in single precision. Raises EngineError for a graph that is quantised in
    another way than an int8 export."""
    import onnx

    model = onnx.load(encoder.file)
    tell_mask_length_by_shape(model)
    dequantise(model)
    left = sorted({node.op_type for node in model.graph.node} & _QUANTISED)
    if left:
        raise EngineError(f"{encoder.file} holds {', '.join(left)} in a form that moulin does not rewrite for OpenVINO")
    swoosh_by_softplus(model)
    merge_constants(model)
    flatten_channels_last(model)
    shift_without_gather(model)
    count_strided(model)
    fix_shapes(model)
    return bytes(model.SerializeToString())
