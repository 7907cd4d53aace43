"""Zipformer's activations, rewritten to fewer operators.

SwooshR and SwooshL are log(1 + exp(x - o)) - 0.08 x - c with o of 1 and 4 and c of 0.313 and 0.035 (Icefall's
zipformer/scaling.py). Exported to ONNX each becomes ten to twelve elementwise operators, each a pass over the tensor in
memory; after the convolutions at the start of a Zipformer they take as long as these. With z = x - o this equals

    (1 - k) LeakyRelu(z, -k / (1 - k))  -  log(sigmoid(|z|))  -  (c + k o)          k = 0.08

because log(1 + exp z) = max(z, 0) - log(sigmoid(|z|)) and max(z, 0) - k z is a LeakyRelu. That is seven operators,
without overflow.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class _Swoosh:
    """One activation: `z` is the tensor x - o, `slope` is k, `constant` is c + k o."""

    output: str
    z: str
    slope: float
    constant: float


def rewrite_swoosh(model: onnx.ModelProto) -> int:
    """Rewrite every Swoosh of `model` in place; return their number. Other graphs are not changed."""
    found = _Graph(model).swooshes()
    if not found:
        return 0
    by_output = {swoosh.output: swoosh for swoosh in found}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        swoosh = by_output.get(node.output[0])
        model.graph.node.extend([node] if swoosh is None else _replacement(model, swoosh))
    remove_dead_nodes(model)
    return len(found)


class _Graph:
    """The producer and the consumers of each tensor of a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = list(model.graph.node)
        self._maker = {output: node for node in self._nodes for output in node.output}
        self._takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self._nodes:
            for name in node.input:
                self._takers[name].append(node)

    def swooshes(self) -> list[_Swoosh]:
        return [swoosh for node in self._nodes if node.op_type == "Log" and (swoosh := self._swoosh(node))]

    def _swoosh(self, log: onnx.NodeProto) -> _Swoosh | None:
        """The Swoosh that contains `log`; None where any node differs from the pattern."""
        softplus = self._softplus(log)
        if softplus is None:
            return None
        z, output = softplus
        # output - k x - c
        minus_slope = self._only_taker(output, "Sub")
        slope = self._made_by(minus_slope.input[1], "Mul") if minus_slope else None
        minus_constant = self._only_taker(minus_slope.output[0], "Sub") if minus_slope else None
        shift = self._made_by(z, "Sub")
        if slope is None or minus_constant is None or shift is None or shift.input[0] not in slope.input:
            return None
        k = next((value for name in slope.input if (value := self._number(name)) is not None), None)
        c, o = self._number(minus_constant.input[1]), self._number(shift.input[1])
        if k is None or c is None or o is None or not 0 < k < 1:
            return None
        return _Swoosh(minus_constant.output[0], z, k, c + k * o)

    def _softplus(self, log: onnx.NodeProto) -> tuple[str, str] | None:
        """The tensors (z, log(1 + exp z)) around `log`, in either of the forms that exports have, or None."""
        plus_one = self._made_by(log.input[0], "Add")
        exp = next((e for name in plus_one.input if (e := self._made_by(name, "Exp"))), None) if plus_one else None
        if exp is None:
            return None
        # torch.logaddexp(0, z): max(0, z) + log(1 + exp(-|0 - z|))
        negated = self._made_by(exp.input[0], "Neg")
        absolute = self._made_by(negated.input[0], "Abs") if negated else None
        difference = self._made_by(absolute.input[0], "Sub") if absolute else None
        if difference is not None:
            total = self._only_taker(log.output[0], "Add")
            if total is None or self._number(difference.input[0]) != 0.0:
                return None
            return difference.input[1], total.output[0]
        # log(1 + exp z), replaced by z where it is infinite
        cast = self._only_taker(log.output[0], "Cast")
        where = next((n for n in self._takers[cast.output[0]] if n.op_type == "Where"), None) if cast else None
        if where is None or where.input[1] != exp.input[0]:
            return None
        return exp.input[0], where.output[0]

    def _made_by(self, tensor: str, op_type: str) -> onnx.NodeProto | None:
        node = self._maker.get(tensor)
        return node if node is not None and node.op_type == op_type else None

    def _only_taker(self, tensor: str, op_type: str) -> onnx.NodeProto | None:
        takers = self._takers[tensor]
        return takers[0] if len(takers) == 1 and takers[0].op_type == op_type else None

    def _number(self, tensor: str) -> float | None:
        from onnx import numpy_helper

        node = self._made_by(tensor, "Constant")
        if node is None or not node.attribute[0].HasField("t"):
            return None
        value = numpy_helper.to_array(node.attribute[0].t)
        return float(value) if value.size == 1 else None


def _replacement(model: onnx.ModelProto, swoosh: _Swoosh) -> list[onnx.NodeProto]:
    from onnx import TensorProto, helper

    def name(part: str) -> str:
        return f"{swoosh.output}/swoosh_{part}"

    for part, value in (("scale", 1 - swoosh.slope), ("constant", swoosh.constant)):
        model.graph.initializer.append(helper.make_tensor(name(part), TensorProto.FLOAT, [], [value]))
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
