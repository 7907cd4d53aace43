"""The parameters of Icefall's two normalisations, which exporters fold into scalars."""

from __future__ import annotations

import numpy as np

from moulin.bundle.onnx_weights.matching import Match
from moulin.bundle.onnx_weights.model_file import Array
from moulin.bundle.onnx_weights.operation import Flow, Operation
from moulin.bundle.onnx_weights.skeleton import Skeleton


def basic_norm(match: Match, name: str, flow: Flow) -> Flow:
    """Take `eps` of x * (mean(x^2) + exp(eps))^-0.5, where `flow` is that of x; returns the flow of the result."""
    norm = match.find(f"{name}.eps", flow, "norm")
    epsilon = _scalar_after(match.skeleton, norm, "Add")
    if epsilon is None:
        raise match.unmatched(f"'{name}.eps' after '{norm.node}', got no constant there")
    match.take(f"{name}.eps", np.log(epsilon))
    return flow | norm.alone


def bias_norm(match: Match, name: str, flow: Flow) -> Flow:
    """Take `bias` and `log_scale` of x * mean((x - bias)^2)^-0.5 * exp(log_scale); see `basic_norm`."""
    norm = match.find(f"{name}.bias", flow, "norm")
    constants = match.skeleton.constants
    for node in match.skeleton.nodes.behind(norm.output):
        if node.op_type == "Sub" and (bias := constants.float(node.input[1])) is not None:
            match.take(f"{name}.bias", bias.reshape(-1))
            break
    else:
        raise match.unmatched(f"'{name}.bias' before '{norm.node}', got no constant there")
    scale = _scalar_after(match.skeleton, norm, "Mul")
    if scale is None:
        raise match.unmatched(f"'{name}.log_scale' after '{norm.node}', got no constant there")
    match.take(f"{name}.log_scale", np.log(scale))
    return flow | norm.alone


def _scalar_after(skeleton: Skeleton, norm: Operation, op_type: str) -> Array | None:
    """The constant of the first node of a type in the chain of nodes with one input after `norm`, float32 []."""
    name = norm.output
    while len(users := skeleton.nodes.after(name)) == 1:
        (node,) = users
        constants = [given for given in node.input if given in skeleton.constants]
        if len(constants) != len(node.input) - 1:
            return None
        if node.op_type == op_type:
            value = skeleton.constants.float(constants[0])
            return None if value is None or value.size != 1 else value.astype(np.float32).reshape(())
        name = node.output[0]
    return None
