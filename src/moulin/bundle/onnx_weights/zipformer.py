"""The parameters of an exported Zipformer of the first version."""

from __future__ import annotations

from collections.abc import Sequence

from moulin.bundle.onnx_weights.encoder_parts import (
    convolution_module,
    convolutions,
    feed_forward,
    is_last,
    linear,
    projection,
)
from moulin.bundle.onnx_weights.matching import Match
from moulin.bundle.onnx_weights.norms import basic_norm
from moulin.bundle.onnx_weights.operation import Flow, union
from moulin.bundle.onnx_weights.stacks import Stacks, heads_of, plain_stacks, positions_of
from moulin.encoders.recipe import Recipe


def zipformer(match: Match, layers: Sequence[int] = ()) -> Recipe:
    """Take the parameters of the encoder and the joiner's `encoder_proj`; `layers` are those of each stack, where they
    are known."""
    last = convolutions(match, *(f"encoder.encoder_embed.conv.{index}" for index in (0, 3, 6)))
    flow = linear(match, "encoder.encoder_embed.out", last.alone).alone
    stacks = Stacks(layers)
    heads: list[int] = []
    outputs: list[Flow] = []
    while True:
        downsample = match.candidates(flow, "average")
        if downsample and is_last(match, flow | downsample[0].alone):
            break
        flow = _skip(match, f"encoder.skip_modules.{stacks.index}", outputs, flow)
        if match.candidates(flow, "average"):
            found = [_downsampled(match, stacks, flow)]
        else:
            found = plain_stacks(match, stacks, flow, _layer)
        outputs += [output for output, _ in found]
        heads += [number for _, number in found]
        flow = outputs[-1]
    projection(match, _downsample(match, "encoder.downsample_output", flow))
    return Recipe(num_heads=tuple(heads), pos_head_dim=_pos_head_dims(match, heads))


def _pos_head_dims(match: Match, heads: Sequence[int]) -> tuple[int, ...]:
    """The size of a head's positional query in each stack."""
    dims = []
    for index, number in enumerate(heads):
        end = ".layers.0.self_attn.linear_pos.weight"
        (rows,) = (
            values.shape[0]
            for name, values in match.tensors.items()
            if name in (f"encoder.encoders.{index}{end}", f"encoder.encoders.{index}.encoder{end}")
        )
        dims.append(rows // number)
    return tuple(dims)


def _skip(match: Match, name: str, outputs: Sequence[Flow], flow: Flow) -> Flow:
    """The mix of a stack's input with the output of an earlier one, where there is one."""
    for output in outputs[:-1]:
        if output != flow and (mixed := _combine(match, name, output, flow)) is not None:
            return mixed
    return flow


def _combine(match: Match, name: str, first: Flow, second: Flow) -> Flow | None:
    """first * weight1 + second * (1 - weight1), in either order; None where the graph has none."""
    for one, other in ((first, second), (second, first)):
        for operation in match.candidates(one, "combine"):
            if operation.other == other:
                match.use(operation)
                weight = operation.weight if one == first else operation.bias
                assert weight is not None
                match.take(f"{name}.weight1", weight)
                return operation.alone
    return None


def _downsampled(match: Match, stacks: Stacks, before: Flow) -> tuple[Flow, int]:
    """A stack at a lower frame rate."""
    name = f"encoder.encoders.{stacks.index}"
    flow = _downsample(match, f"{name}.downsample", before)
    count = 0
    while count == 0 or not match.candidates(flow, "shift"):
        flow, heads = _layer(match, f"{name}.encoder.layers.{count}.", flow)
        count += 1
    upsample = match.find(f"{name}.upsample.bias", flow, "shift")
    assert upsample.weight is not None
    match.take(f"{name}.upsample.bias", upsample.weight.reshape(-1, upsample.weight.shape[-1]))
    mixed = _combine(match, f"{name}.out_combiner", before, upsample.alone)
    if mixed is None:
        raise match.unmatched(f"'{name}.out_combiner.weight1' after '{upsample.node}', got none")
    stacks.index += 1
    return mixed, heads


def _downsample(match: Match, name: str, flow: Flow) -> Flow:
    """A mean of frames weighted by their products with `query`, and where there are more channels afterwards a
    projection of the frames beside it."""
    query = match.find(f"{name}.query", flow, "average")
    assert query.weight is not None
    match.take(f"{name}.query", query.weight.reshape(-1))
    after = flow | query.alone
    if match.candidates(flow, "linear"):
        after |= linear(match, f"{name}.extra_proj", flow, bias=False).alone
    return after


def _layer(match: Match, name: str, before: Flow) -> tuple[Flow, int]:
    flow = feed_forward(match, f"{name}feed_forward1.in_proj", f"{name}feed_forward1.out_proj", before)
    flow |= linear(match, f"{name}pooling.proj", flow, bias=False).alone
    weights_in = linear(match, f"{name}self_attn.in_proj", flow)
    weights = union(weights_in, positions_of(match, f"{name}self_attn.linear_pos", weights_in))
    flow |= linear(match, f"{name}self_attn.out_proj", weights).alone
    flow, _ = convolution_module(match, f"{name}conv_module1", flow)
    flow = feed_forward(match, f"{name}feed_forward2.in_proj", f"{name}feed_forward2.out_proj", flow)
    values = linear(match, f"{name}self_attn.in_proj2", flow, bias=False)
    flow |= linear(match, f"{name}self_attn.out_proj2", weights | values.alone).alone
    flow, _ = convolution_module(match, f"{name}conv_module2", flow)
    flow = feed_forward(match, f"{name}feed_forward3.in_proj", f"{name}feed_forward3.out_proj", flow)
    flow = basic_norm(match, f"{name}norm_final", flow)
    mix = match.find(f"{name}bypass_scale", flow, "mix")
    assert mix.weight is not None
    match.take(f"{name}bypass_scale", mix.weight.reshape(()))
    return before | mix.alone, heads_of(match, weights_in)
