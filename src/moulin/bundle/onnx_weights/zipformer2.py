"""The parameters of an exported Zipformer2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moulin.bundle.onnx_weights.encoder_parts import convolutions, feed_forward, is_last, linear, projection
from moulin.bundle.onnx_weights.matching import Match
from moulin.bundle.onnx_weights.model_file import Array
from moulin.bundle.onnx_weights.norms import bias_norm
from moulin.bundle.onnx_weights.operation import Flow, Operation, union
from moulin.bundle.onnx_weights.stacks import Stacks, heads_of, plain_stacks, positions_of
from moulin.encoders.recipe import Recipe


def zipformer2(match: Match, layers: Sequence[int] = ()) -> Recipe:
    """Take the parameters of the encoder and the joiner's `encoder_proj`; `layers` are those of each stack, where they
    are known."""
    flow = _embedding(match)
    stacks, heads = Stacks(layers), []
    while True:
        downsample = match.candidates(flow, "average")
        if downsample and is_last(match, downsample[0].alone):
            break
        flow, found = _downsampled(match, stacks, flow) if downsample else _plain(match, stacks, flow)
        heads += found
    last = _downsample(match, "encoder.downsample_output", flow)
    projection(match, last.alone)
    return Recipe(num_heads=tuple(heads))


def _embedding(match: Match) -> Flow:
    last = convolutions(match, *(f"encoder_embed.conv.{index}" for index in (0, 4, 7)))
    flow = last.alone
    for name in ("depthwise_conv", "pointwise_conv1", "pointwise_conv2"):
        conv = match.find(f"encoder_embed.convnext.{name}.weight", flow, "conv")
        match.layer(f"encoder_embed.convnext.{name}", conv)
        flow = conv.alone
    out = linear(match, "encoder_embed.out", last.alone | flow)
    return bias_norm(match, "encoder_embed.out_norm", out.alone)


def _plain(match: Match, stacks: Stacks, flow: Flow) -> tuple[Flow, list[int]]:
    """`plain_stacks`: the flow after the last, and the heads of each."""
    found = plain_stacks(match, stacks, flow, _layer)
    return found[-1][0] if found else flow, [heads for _, heads in found]


def _downsampled(match: Match, stacks: Stacks, before: Flow) -> tuple[Flow, list[int]]:
    """A stack at a lower frame rate."""
    name = f"encoder.encoders.{stacks.index}"
    flow = _downsample(match, f"{name}.downsample", before).alone
    count = 0
    while count == 0 or not match.candidates(before | flow, "mix"):
        flow, heads = _layer(match, f"{name}.encoder.layers.{count}.", flow)
        count += 1
    stacks.index += 1
    return _bypass(match, f"{name}.out_combiner", before, flow), [heads]


def _downsample(match: Match, name: str, flow: Flow) -> Operation:
    """The export holds softmax(bias). Its logarithm is as good as the bias itself: the softmax of both is the same."""
    average = match.find(f"{name}.bias", flow, "average")
    assert average.weight is not None
    match.take(f"{name}.bias", np.log(average.weight.astype(np.float32)).reshape(-1))
    return average


def _layer(match: Match, name: str, before: Flow) -> tuple[Flow, int]:
    flow = feed_forward(match, f"{name}feed_forward1.in_proj", f"{name}feed_forward1.out_proj", before)
    weights_in = linear(match, f"{name}self_attn_weights.in_proj", before)
    gated = linear(match, f"{name}nonlin_attention.in_proj", flow)
    distances = positions_of(match, f"{name}self_attn_weights.linear_pos", weights_in, gated.alone)
    weights = union(weights_in, distances)
    flow |= linear(match, f"{name}nonlin_attention.out_proj", weights | gated.alone).alone
    flow = _self_attention(match, f"{name}self_attn1", weights, flow)
    flow = _convolution(match, f"{name}conv_module1", flow)
    flow = feed_forward(match, f"{name}feed_forward2.in_proj", f"{name}feed_forward2.out_proj", flow)
    flow = _bypass(match, f"{name}bypass_mid", before, flow)
    flow = _self_attention(match, f"{name}self_attn2", weights, flow)
    flow = _convolution(match, f"{name}conv_module2", flow)
    flow = feed_forward(match, f"{name}feed_forward3.in_proj", f"{name}feed_forward3.out_proj", flow)
    flow = bias_norm(match, f"{name}norm", flow)
    return _bypass(match, f"{name}bypass", before, flow), heads_of(match, weights_in)


def _bypass(match: Match, name: str, before: Flow, after: Flow) -> Flow:
    mix = match.find(f"{name}.bypass_scale", before | after, "mix")
    assert mix.weight is not None
    match.take(f"{name}.bypass_scale", mix.weight.reshape(-1))
    return before | mix.alone


def _self_attention(match: Match, name: str, weights: Flow, flow: Flow) -> Flow:
    values = linear(match, f"{name}.in_proj", flow)
    return flow | linear(match, f"{name}.out_proj", weights | values.alone).alone


def _convolution(match: Match, name: str, flow: Flow) -> Flow:
    gate = linear(match, f"{name}.in_proj", flow)
    found = match.candidates(gate.alone, "conv")
    if len(found) != 2:
        depthwise = match.only(f"{name}.depthwise_conv.weight", gate.alone, found, ("conv",))
        match.layer(f"{name}.depthwise_conv", depthwise)
        mixed = depthwise.alone
    else:
        mixed = _causal_convolution(match, f"{name}.depthwise_conv", gate, found)
    return flow | linear(match, f"{name}.out_proj", mixed).alone


def _causal_convolution(match: Match, name: str, gate: Operation, found: list[Operation]) -> Flow:
    """The sum of a causal convolution and one within the chunk, of which the edges are scaled."""
    scaled = [conv for conv in found if match.candidates(conv.alone, "edges", "scale")]
    within = match.only(f"{name}.chunkwise_conv.weight", gate.alone, scaled, ("conv",))
    causal = match.find(f"{name}.causal_conv.weight", gate.alone, "conv")
    match.layer(f"{name}.chunkwise_conv", within)
    match.layer(f"{name}.causal_conv", causal)
    edges = match.find(f"{name}.chunkwise_conv_scale", within.alone, "edges", "scale")
    channels, _, kernel = within.shape
    scale = _folded_edges(edges.weight, kernel) if edges.weight is not None else _edges(match, edges)
    if scale is None or scale.shape != (2, channels, kernel):
        raise match.unmatched(f"'{name}.chunkwise_conv_scale' of {channels} channels in '{edges.node}'")
    match.take(f"{name}.chunkwise_conv_scale", scale)
    return union(causal, edges)


def _edges(match: Match, edges: Operation) -> Array | None:
    """The scales [2, channels, kernel] of both ends: the graph fills up each with zeros for a chunk longer than the
    kernel, and takes the beginning of the left one and the end of the right one for a shorter."""
    constants = match.skeleton.constants
    left = right = None
    for node in match.skeleton.nodes.behind(edges.operand):
        if node.op_type == "Concat" and len(node.input) == 2:
            first, second = (constants.float(name) for name in node.input)
            left, right = left if first is None else first, right if second is None else second
        elif node.op_type == "Slice" and len(node.input) > 2:
            whole, start = constants.float(node.input[0]), constants.value(node.input[1])
            if whole is not None and whole.ndim == 2:
                at_beginning = start is not None and not start.any()
                left, right = (whole, right) if at_beginning else (left, whole)
    if left is None or right is None or left.shape != right.shape:
        return None
    return np.stack((left, right))


def _folded_edges(scale: Array, kernel: int) -> Array | None:
    """The same from 1 + left + right [channels, chunk] of a fixed chunk. Where the two overlap the sum is the left's:
    nothing else can be told, and nothing else is used in chunks of that length."""
    if scale.ndim != 2:
        return None
    channels, chunk = scale.shape
    ends: Array = np.zeros((2, channels, kernel), np.float32)
    of_left = min(chunk, kernel)
    of_right = min(chunk - of_left, kernel)  # between the two the scale is 1
    ends[0, :, :of_left] = scale[:, :of_left] - 1.0
    ends[1, :, kernel - of_right :] = scale[:, chunk - of_right :] - 1.0
    return ends
