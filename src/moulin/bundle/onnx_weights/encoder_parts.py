"""What the encoders of several families have in common."""

from __future__ import annotations

from moulin.bundle.onnx_weights.matching import Match
from moulin.bundle.onnx_weights.norms import basic_norm
from moulin.bundle.onnx_weights.operation import Flow, Operation


def convolutions(match: Match, *names: str) -> Operation:
    """The convolutions of an embedding, one after the other; returns the last."""
    flow = match.skeleton.operations[0].alone
    for name in names:
        conv = match.find(f"{name}.weight", flow, "conv")
        match.layer(name, conv)
        flow = conv.alone
    return conv


def conv2d_subsampling(match: Match, name: str) -> Flow:
    """The embedding of Conformer and LSTM, with a norm; returns the flow of its output."""
    last = convolutions(match, *(f"{name}.conv.{index}" for index in (0, 3, 6)))
    out = match.find(f"{name}.out.weight", last.alone, "linear")
    match.layer(f"{name}.out", out)
    return basic_norm(match, f"{name}.out_norm", out.alone)


def feed_forward(match: Match, up: str, down: str, flow: Flow) -> Flow:
    """Take two linear layers, and return the flow after them: their output added to their input."""
    first, second = match.pair(up, down, flow)
    match.layer(up, first)
    match.layer(down, second)
    return flow | second.alone


def linear(match: Match, name: str, flow: Flow, *, bias: bool = True) -> Operation:
    """The only linear layer that `flow` feeds."""
    found = match.find(f"{name}.weight", flow, "linear")
    match.layer(name, found, bias=bias)
    return found


def convolution_module(match: Match, name: str, flow: Flow) -> tuple[Flow, Operation]:
    """A gate, a depthwise convolution and a projection, added to their input: the flow of the sum, and the depthwise
    convolution. The first and the last layer are convolutions of length 1."""
    before = flow
    for layer in ("pointwise_conv1", "depthwise_conv", "pointwise_conv2"):
        conv = match.find(f"{name}.{layer}.weight", flow, "conv")
        match.layer(f"{name}.{layer}", conv)
        flow = conv.alone
        if layer == "depthwise_conv":
            depthwise = conv
    return before | flow, depthwise


def is_last(match: Match, flow: Flow) -> bool:
    """Whether `flow` is that of the encoder's own output, which only the joiner's projection follows."""
    return any(operation.alone == _projected(match) for operation in match.candidates(flow, "linear"))


def projection(match: Match, flow: Flow) -> None:
    """The joiner's `encoder_proj`, at the end of every exported encoder, and a CTC head beside it."""
    found = match.candidates(flow, "linear")
    heads = [operation for operation in found if operation.alone != _projected(match)]
    match.layer(
        "joiner.encoder_proj",
        match.only("joiner.encoder_proj.weight", flow, [o for o in found if o not in heads], ("linear",)),
    )
    if heads:
        match.layer("ctc_output.1", match.only("ctc_output.1.weight", flow, heads, ("linear",)))


def _projected(match: Match) -> Flow:
    outputs = [output.name for output in match.skeleton.file.model.graph.output]
    return match.skeleton.flow("encoder_out" if "encoder_out" in outputs else outputs[0])
