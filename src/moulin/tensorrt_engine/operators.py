"""Operators that TensorRT's ONNX parser refuses, from its documentation (onnx-tensorrt, docs/operators.md, 8.5).

Later versions accept more. Operators refused here were refused or restricted in some version since 8.5, or make an
engine slow; no encoder of moulin's needs them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

_NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu
Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool Greater GreaterOrEqual GridSample HardSigmoid HardSwish Identity InstanceNormalization IsNaN LRN LSTM
LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization
Min Mod Mul Neg NonMaxSuppression Not OneHot Or PRelu Pad Pow QuantizeLinear RNN Range Reciprocal ReduceL1 ReduceL2
ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
ReverseSequence RoiAlign Round Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice
Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu
Unsqueeze Upsample Where Xor
"""
SUPPORTED = frozenset(_NAMES.split())

_QUANTISED = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv")
_CONTROL_FLOW = ("If", "Loop", "Scan")

# The position of the input that must be a constant.
_CONSTANT_INPUTS = {"CumSum": 1, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1, "TopK": 1}

_TYPES = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused operator or tensor, its number of occurrences, and the reason."""

    what: str
    count: int
    why: str

    def __str__(self) -> str:
        return f"{self.count} {self.what} ({self.why})"


def refusals(model: ModelProto) -> list[Refusal]:
    """Everything in `model` that the parser would refuse; empty where it accepts the model."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    found = Counter(reason for node in model.graph.node for reason in _reasons(node, constants))
    for tensor in (*model.graph.input, *model.graph.output):
        if tensor.type.tensor_type.elem_type not in _TYPES:
            kind = TensorProto.DataType.Name(tensor.type.tensor_type.elem_type)
            found[f"the tensor {tensor.name}", f"TensorRT has no type {kind}"] += 1
    return [Refusal(what, count, why) for (what, why), count in found.items()]


def _reasons(node: NodeProto, constants: set[str]) -> Iterator[tuple[str, str]]:
    kind = node.op_type
    if node.domain not in ("", "ai.onnx"):
        yield f"{node.domain}.{kind}", "not an operator of ONNX"
    elif kind in _QUANTISED:
        yield kind, "dynamic quantisation to integers, made for CPUs"
    elif kind in _CONTROL_FLOW:
        yield kind, "control flow, whose branches must have shapes that agree"
    elif kind not in SUPPORTED:
        yield kind, "not among the operators that the parser takes"
    elif kind in _CONSTANT_INPUTS:
        position = _CONSTANT_INPUTS[kind]
        if position < len(node.input) and node.input[position] and node.input[position] not in constants:
            yield kind, f"its input {position} must be a constant"
