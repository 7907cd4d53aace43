"""Zipformer's activations, rewritten to fewer operators.

SwooshR and SwooshL are log(1 + exp(x - o)) - 0.08 x - c with o of 1 and 4 and c of 0.313 and 0.035 (Icefall's
zipformer/scaling.py). Exported to ONNX each becomes ten to twelve elementwise operators, each a pass over the tensor in
memory; after the convolutions at the start of a Zipformer they take as long as these. With z = x - o this equals

    (1 - k) LeakyRelu(z, -k / (1 - k))  -  log(sigmoid(|z|))  -  (c + k o)          k = 0.08

because log(1 + exp z) = max(z, 0) - log(sigmoid(|z|)) and max(z, 0) - k z is a LeakyRelu. That is seven operators,
without overflow, and the form in which `moulin export` writes it. A runtime that fuses operators, and whose Softplus is
fast, takes it as

    (Softplus(z) / k - z) k  -  (c + k o)

which has no product of z itself: OpenVINO computes such a one in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes
from moulin.onnx_rewrites.graph_view import GraphView

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Swoosh:
    """One activation: `z` is the tensor x - o, `slope` is k, `constant` is c + k o."""

    output: str
    z: str
    slope: float
    constant: float


def rewrite_swoosh(model: onnx.ModelProto) -> int:
    """Rewrite every Swoosh of `model` that is spelt out to the first form, in place; return their number. Other graphs
    are not changed."""
    return _rewrite(model, _spelt_out, _by_sigmoid)


def swoosh_by_softplus(model: onnx.ModelProto) -> int:
    """Rewrite every Swoosh of `model`, spelt out or in the first form, to the second one, in place; return their
    number."""
    return _rewrite(model, _spelt_out, _by_softplus) + _rewrite(model, in_first_form, _by_softplus)


def _rewrite(
    model: onnx.ModelProto,
    read: Callable[[GraphView, onnx.NodeProto], Swoosh | None],
    written: Callable[[onnx.ModelProto, Swoosh], list[onnx.NodeProto]],
) -> int:
    view = GraphView(model)
    found = [swoosh for node in model.graph.node if node.op_type == "Log" and (swoosh := read(view, node))]
    if not found:
        return 0
    by_output = {swoosh.output: swoosh for swoosh in found}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        swoosh = by_output.get(node.output[0])
        model.graph.node.extend([node] if swoosh is None else written(model, swoosh))
    remove_dead_nodes(model)
    return len(found)


def _spelt_out(view: GraphView, log: onnx.NodeProto) -> Swoosh | None:
    """The Swoosh around `log` as Icefall exports it; None where any node differs from the pattern."""
    softplus = _softplus(view, log)
    if softplus is None:
        return None
    z, output = softplus
    # output - k x - c
    minus_slope = view.only_taker(output, "Sub")
    slope = view.made_by(minus_slope.input[1], "Mul") if minus_slope else None
    minus_constant = view.only_taker(minus_slope.output[0], "Sub") if minus_slope else None
    shift = view.made_by(z, "Sub")
    if slope is None or minus_constant is None or shift is None or shift.input[0] not in slope.input:
        return None
    k = next((value for name in slope.input if (value := view.number(name)) is not None), None)
    c, o = view.number(minus_constant.input[1]), view.number(shift.input[1])
    if k is None or c is None or o is None or not 0 < k < 1:
        return None
    return Swoosh(minus_constant.output[0], z, k, c + k * o)


def _softplus(view: GraphView, log: onnx.NodeProto) -> tuple[str, str] | None:
    """The tensors (z, log(1 + exp z)) around `log`, in either of the forms that exports have, or None."""
    plus_one = view.made_by(log.input[0], "Add")
    exp = next((e for name in plus_one.input if (e := view.made_by(name, "Exp"))), None) if plus_one else None
    if exp is None:
        return None
    # torch.logaddexp(0, z): max(0, z) + log(1 + exp(-|0 - z|))
    negated = view.made_by(exp.input[0], "Neg")
    absolute = view.made_by(negated.input[0], "Abs") if negated else None
    difference = view.made_by(absolute.input[0], "Sub") if absolute else None
    if difference is not None:
        total = view.only_taker(log.output[0], "Add")
        if total is None or view.number(difference.input[0]) != 0.0:
            return None
        return difference.input[1], total.output[0]
    # log(1 + exp z), replaced by z where it is infinite
    cast = view.only_taker(log.output[0], "Cast")
    where = next((n for n in view.takers(cast.output[0]) if n.op_type == "Where"), None) if cast else None
    if where is None or where.input[1] != exp.input[0]:
        return None
    return exp.input[0], where.output[0]


def in_first_form(view: GraphView, log: onnx.NodeProto) -> Swoosh | None:
    """The Swoosh around `log` as `rewrite_swoosh` leaves it, its constant 0 where that is merged into another layer
    (`merged_constants.py`); None where any node differs from the pattern."""
    sigmoid = view.made_by(log.input[0], "Sigmoid")
    absolute = view.made_by(sigmoid.input[0], "Abs") if sigmoid else None
    difference = view.only_taker(log.output[0], "Sub")
    linear = view.made_by(difference.input[0], "Mul") if difference else None
    if absolute is None or difference is None or linear is None:
        return None
    leaky = next((node for name in linear.input if (node := view.made_by(name, "LeakyRelu"))), None)
    scale = next((value for name in linear.input if (value := view.number(name)) is not None), None)
    if leaky is None or scale is None:
        return None
    alpha = next((attribute.f for attribute in leaky.attribute if attribute.name == "alpha"), 0.01)
    if leaky.input[0] != absolute.input[0] or abs(alpha * scale + 1 - scale) > _ROUNDING:
        return None
    output, constant = difference.output[0], 0.0
    minus_constant = view.only_taker(output, "Sub")
    if minus_constant and minus_constant.input[0] == output:
        number = view.number(minus_constant.input[1])
        output, constant = (output, 0.0) if number is None else (minus_constant.output[0], number)
    return Swoosh(output, leaky.input[0], 1 - scale, constant)


_ROUNDING = 1e-6
"""The difference between the two slopes of one Swoosh that single precision explains."""


def number_type(model: onnx.ModelProto) -> int:
    """The type of `model`'s weights."""
    from onnx import TensorProto

    types = {tensor.data_type for tensor in model.graph.initializer}
    return next((half for half in (TensorProto.FLOAT16, TensorProto.BFLOAT16) if half in types), TensorProto.FLOAT)


def _add_numbers(model: onnx.ModelProto, numbers: Mapping[str, float]) -> None:
    from onnx import helper

    kind = number_type(model)
    model.graph.initializer.extend(helper.make_tensor(name, kind, [], [value]) for name, value in numbers.items())


def _by_sigmoid(model: onnx.ModelProto, swoosh: Swoosh) -> list[onnx.NodeProto]:
    from onnx import helper

    def name(part: str) -> str:
        return f"{swoosh.output}/swoosh_{part}"

    _add_numbers(model, {name("scale"): 1 - swoosh.slope, name("constant"): swoosh.constant})
    alpha = -swoosh.slope / (1 - swoosh.slope)
    return [
        helper.make_node("LeakyRelu", [swoosh.z], [name("leaky")], alpha=alpha),
        helper.make_node("Mul", [name("leaky"), name("scale")], [name("linear")]),
        helper.make_node("Abs", [swoosh.z], [name("abs")]),
        helper.make_node("Sigmoid", [name("abs")], [name("sigmoid")]),
        helper.make_node("Log", [name("sigmoid")], [name("log")]),
        helper.make_node("Sub", [name("linear"), name("log")], [name("sum")]),
        helper.make_node("Sub", [name("sum"), name("constant")], [swoosh.output]),
    ]


def _by_softplus(model: onnx.ModelProto, swoosh: Swoosh) -> list[onnx.NodeProto]:
    from onnx import helper

    def name(part: str) -> str:
        return f"{swoosh.output}/softplus_{part}"

    numbers = {"steep": 1 / swoosh.slope, "slope": swoosh.slope, "constant": swoosh.constant}
    _add_numbers(model, {name(part): value for part, value in numbers.items()})
    return [
        helper.make_node("Softplus", [swoosh.z], [name("curve")]),
        helper.make_node("Mul", [name("curve"), name("steep")], [name("scaled")]),
        helper.make_node("Sub", [name("scaled"), swoosh.z], [name("difference")]),
        helper.make_node("Mul", [name("difference"), name("slope")], [name("sum")]),
        helper.make_node("Sub", [name("sum"), name("constant")], [swoosh.output]),
    ]
