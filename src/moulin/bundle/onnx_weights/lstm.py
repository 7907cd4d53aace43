"""The parameters of an exported LSTM encoder. A chunk is one frame, so the graph has each layer written out once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moulin.bundle.onnx_weights.encoder_parts import conv2d_subsampling, feed_forward, is_last, projection
from moulin.bundle.onnx_weights.matching import Match
from moulin.bundle.onnx_weights.model_file import Array
from moulin.bundle.onnx_weights.norms import basic_norm
from moulin.bundle.onnx_weights.operation import NOTHING, Flow, union
from moulin.encoders.recipe import Recipe


def lstm(match: Match, _layers: Sequence[int] = ()) -> Recipe:
    """Take the parameters of the encoder and the joiner's `encoder_proj`."""
    flow = conv2d_subsampling(match, "encoder.encoder_embed")
    layer = 0
    while layer == 0 or not is_last(match, flow):
        name = f"encoder.encoder.layers.{layer}"
        flow = _lstm(match, f"{name}.lstm", flow)
        flow = feed_forward(match, f"{name}.feed_forward.0", f"{name}.feed_forward.4", flow)
        flow = basic_norm(match, f"{name}.norm_final", flow)
        layer += 1
    projection(match, flow)
    return Recipe()


def _lstm(match: Match, name: str, flow: Flow) -> Flow:
    """Exporters sum up the two biases: the second is zero here."""
    frame = match.find(f"{name}.weight_ih_l0", flow, "linear")
    for state in match.candidates(NOTHING, "linear"):
        gates = union(frame, state)
        if projections := match.candidates(gates, "linear"):
            break
        if match.candidates(flow | gates, "linear"):
            break
    else:
        raise match.unmatched(f"'{name}.weight_hh_l0' beside '{frame.node}', got none")
    match.use(state)
    match.take(f"{name}.weight_ih_l0", match.weight(frame))
    match.take(f"{name}.weight_hh_l0", match.weight(state))
    bias: Array = np.zeros(frame.width, np.float32)
    for operation in (frame, state):
        if operation.bias is not None:
            bias = bias + operation.bias
    match.take(f"{name}.bias_ih_l0", bias)
    match.take(f"{name}.bias_hh_l0", np.zeros_like(bias))
    if not projections:
        return flow | gates
    last = match.only(f"{name}.weight_hr_l0", gates, projections, ("linear",))
    match.take(f"{name}.weight_hr_l0", match.weight(last))
    return flow | last.alone
