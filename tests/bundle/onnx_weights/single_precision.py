"""fp16 and int8 graphs rewritten to compute the same in fp32, the reference for what is recovered from them.

ONNX Runtime rounds activations too in both, so that its output of the files themselves is another. Written for the
forms that onnxruntime's `quantize_dynamic` and onnxconverter-common's `float16` give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

_HALF, _SINGLE = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


def in_single_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with fp16 tensors in fp32, and integer products as products with the dequantised weights."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    _dequantise(model.graph)
    _widen(model.graph)
    del model.graph.value_info[:]
    return model


def with_weights_of(halves: onnx.ModelProto, exact: onnx.ModelProto) -> onnx.ModelProto:
    """The fp32 graph `exact` with the weights of `halves`, which it was converted to. An fp16 graph has other constants
    rounded too: those of activations, and the table of encoded distances."""
    model: onnx.ModelProto = onnx.ModelProto.FromString(exact.SerializeToString())
    graph = in_single_precision(halves).graph
    rounded = {tensor.name: tensor for tensor in graph.initializer}
    rounded |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for tensor in model.graph.initializer:
        tensor.CopyFrom(rounded[tensor.name])
    weights = _weights_in_constants(model.graph)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in weights:
            node.attribute[0].t.CopyFrom(rounded[node.output[0]])
    return model


def _weights_in_constants(graph: onnx.GraphProto) -> set[str]:
    """Constants that hold weights: matrices and vectors that nothing is cut out of, and the numbers of norms, which
    follow a mean or its power."""
    makers = {name: node.op_type for node in graph.node for name in node.output}
    found = set()
    for node in graph.node:
        if node.op_type in ("Add", "Mul", "MatMul", "Gemm"):
            others = {makers.get(name) for name in node.input} - {"Constant"}
            for name in node.input:
                if makers.get(name) == "Constant" and (
                    node.op_type in ("MatMul", "Gemm") or others & {"ReduceMean", "Pow"}
                ):
                    found.add(name)
    return found


def _widen(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == _HALF:
            value.type.tensor_type.elem_type = _SINGLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _widen(attribute.g)
                del attribute.g.value_info[:]
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _HALF:
                attribute.i = _SINGLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == _HALF:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _dequantise(graph: onnx.GraphProto) -> None:
    arrays: dict[str, Any] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for node in list(graph.node):
        if node.op_type in ("MatMulInteger", "ConvInteger"):
            weight = arrays[node.input[1]].astype(np.int32) - _zero_point(arrays, node, 3)
            (cast,) = users[node.output[0]]
            (product,) = users[cast.output[0]]
            scales = makers[next(name for name in product.input if name != cast.output[0])]
            scale = next(arrays[name] for name in scales.input if name in arrays)
            if node.op_type == "ConvInteger" and scale.ndim:
                scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
            weight = weight.astype(np.float32) * scale
            name = f"{node.output[0]}_weight"
            graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), name))
            node.op_type = node.op_type.removesuffix("Integer")
            node.input[:] = [makers[node.input[0]].input[0], name]
            product.op_type = "Identity"
            product.input[:] = [node.output[0]]
            graph.node.remove(cast)
        elif node.op_type == "DequantizeLinear" and makers[node.input[0]].op_type == "Gather":
            gather = makers[node.input[0]]
            rows = arrays[gather.input[0]].astype(np.int32) - arrays[node.input[2]].astype(np.int32)
            name = f"{node.output[0]}_rows"
            graph.initializer.append(
                numpy_helper.from_array((rows.astype(np.float32) * arrays[node.input[1]]).astype(np.float32), name)
            )
            gather.input[0] = name
            node.op_type = "Identity"
            node.input[:] = [gather.output[0]]


def _zero_point(arrays: dict[str, Any], node: onnx.NodeProto, index: int) -> Any:
    if len(node.input) <= index:
        return 0
    zero_point = arrays[node.input[index]].astype(np.int32)
    sizes = (-1, *[1] * (arrays[node.input[1]].ndim - 1)) if node.op_type == "ConvInteger" and zero_point.ndim else None
    return zero_point.reshape(sizes) if sizes else zero_point
