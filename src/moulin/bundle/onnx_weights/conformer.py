"""The parameters of an exported Conformer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moulin.bundle.onnx_weights.encoder_parts import (
    conv2d_subsampling,
    convolution_module,
    feed_forward,
    is_last,
    linear,
    projection,
)
from moulin.bundle.onnx_weights.integers import as_array
from moulin.bundle.onnx_weights.matching import Match
from moulin.bundle.onnx_weights.norms import basic_norm
from moulin.bundle.onnx_weights.operation import Flow, Operation, union
from moulin.encoders.recipe import Recipe


def conformer(match: Match, _layers: Sequence[int] = ()) -> Recipe:
    """Take the parameters of the encoder and the joiner's `encoder_proj`; what they do not tell is returned."""
    flow = conv2d_subsampling(match, "encoder.encoder_embed")
    layer, causal = 0, False
    while layer == 0 or not is_last(match, flow):
        flow, depthwise = _layer(match, f"encoder.encoder.layers.{layer}", flow)
        # A convolution that is not causal has as much padding on both sides.
        causal = not any(depthwise.attributes.get("pads", ()))
        layer += 1
    projection(match, flow)
    return Recipe(causal=causal)


def _layer(match: Match, name: str, flow: Flow) -> tuple[Flow, Operation]:
    flow = feed_forward(match, f"{name}.feed_forward_macaron.0", f"{name}.feed_forward_macaron.4", flow)
    flow = _attention(match, f"{name}.self_attn", flow)
    flow, depthwise = convolution_module(match, f"{name}.conv_module", flow)
    flow = feed_forward(match, f"{name}.feed_forward.0", f"{name}.feed_forward.4", flow)
    return basic_norm(match, f"{name}.norm_final", flow), depthwise


def _attention(match: Match, name: str, flow: Flow) -> Flow:
    query, memory = _in_proj(match, name, flow)
    biases = match.candidates(query.alone, "shift")
    products = {(one, other) for _, one, other in match.skeleton.products}
    positions = [
        (bias, operation)
        for bias in biases
        for operation in match.constants()
        if (bias.alone, operation.alone) in products
    ]
    content = [bias for bias in biases if (bias.alone, memory.alone) in products]
    if len(positions) != 1 or len(content) != 1:
        raise match.unmatched(
            f"'{name}.linear_pos.weight' in a product with queries from '{query.node}', got {len(positions)} of them"
        )
    (by_place, linear_pos), (by_content,) = positions[0], content
    match.layer(f"{name}.linear_pos", linear_pos, bias=False)
    for bias, operation in (("pos_bias_u", by_content), ("pos_bias_v", by_place)):
        assert operation.weight is not None
        match.take(f"{name}.{bias}", np.atleast_2d(operation.weight.squeeze()))
        match.use(operation)
    match.use(linear_pos)
    attended = union(memory, by_content, by_place, linear_pos)
    return flow | linear(match, f"{name}.out_proj", attended).alone


def _in_proj(match: Match, name: str, flow: Flow) -> tuple[Operation, Operation]:
    """The projections to queries, and to keys and values: two layers in streaming, where the keys are those of the past
    too, else one."""
    found = sorted(match.candidates(flow, "linear"), key=lambda operation: operation.width)
    if len(found) != 2:
        both = linear(match, f"{name}.in_proj", flow)
        return both, both
    query, memory = found
    weights = [as_array(match.weight(operation)) for operation in found]
    biases = [
        np.zeros(operation.width, np.float32) if operation.bias is None else operation.bias for operation in found
    ]
    if memory.width != 2 * query.width:
        raise match.unmatched(f"'{name}.in_proj.weight' in '{query.node}' and '{memory.node}'")
    match.take(f"{name}.in_proj.weight", np.concatenate(weights))
    match.take(f"{name}.in_proj.bias", np.concatenate(biases))
    match.use(query)
    match.use(memory)
    return query, memory
