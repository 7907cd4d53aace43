"""Rewriting of a graph for TensorRT: conditional paddings made unconditional, constants folded, the
batch of positions stated."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from moulin.errors import EngineError, first_line
from moulin.onnx_rewrites.position_batch import state_position_batch


def sanitise(model: ModelProto) -> ModelProto:
    """An equivalent of `model`, whose weights are loaded, that TensorRT accepts. Raises EngineError where ONNX Runtime
    cannot load it."""
    without = ModelProto()
    without.CopyFrom(model)
    inline_paddings(without.graph)
    folded = fold_constants(without)
    state_position_batch(folded)
    return folded


def inline_paddings(graph: GraphProto) -> int:
    """Replace every `If` that pads a tensor or passes it on by its padding branch; returns their number.

    Icefall's Zipformer2 has one for each downsampling (`if pad > 0: ...`). Padding by zero frames equals no padding, so
    the branch can always run. (The lines of zipformer.py that the original's guide asks to comment out are others: the
    early return of the positional encoding's `extend_pe`.)
    """
    nodes: list[NodeProto] = []
    inlined = 0
    for node in graph.node:
        padding = _padding(node)
        if padding is None:
            nodes.append(node)
            continue
        inlined += 1
        result = padding.output[0].name
        for inner in padding.node:
            # Names within a branch are unique in the graph, so its nodes can move out unchanged but for the result.
            inner.output[:] = [node.output[0] if name == result else name for name in inner.output]
            nodes.append(inner)
    del graph.node[:]
    graph.node.extend(nodes)
    return inlined


def _padding(node: NodeProto) -> GraphProto | None:
    """The branch of an `If` that concatenates padding to the tensor that the other branch returns; None for others."""
    if node.op_type != "If" or len(node.output) != 1:
        return None
    branches: dict[str, GraphProto] = {attribute.name: attribute.g for attribute in node.attribute}
    then, otherwise = branches["then_branch"], branches["else_branch"]
    if len(otherwise.node) != 1 or otherwise.node[0].op_type != "Identity":
        return None
    last = then.node[-1]
    kept = otherwise.node[0].input[0]
    pads = last.op_type == "Concat" and last.input[0] == kept and last.output[0] == then.output[0].name
    return then if pads else None


def fold_constants(model: ModelProto) -> ModelProto:
    """`model` as ONNX Runtime's basic optimiser writes it: constants folded, unused nodes removed, ONNX's own operators
    only. Of Zipformer it leaves 841 operators, polygraphy's folding 1,121."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4  # errors are raised as exceptions too
    with tempfile.TemporaryDirectory() as folder:
        source, folded = Path(folder) / "model.onnx", Path(folder) / "folded.onnx"
        onnx.save(model, source, save_as_external_data=_is_large(model), location="model.data")
        options.optimized_model_filepath = str(folded)
        if _is_large(model):
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "folded.data")
        try:
            onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has many exception types and no common base but this one
            raise EngineError(f"ONNX Runtime cannot load the encoder: {first_line(error)}") from error
        result = onnx.load(folded)
    used = {node.domain for node in result.graph.node}
    kept = [opset for opset in result.opset_import if opset.domain in used | {""}]
    del result.opset_import[:]
    result.opset_import.extend(kept)
    return result


def _is_large(model: ModelProto) -> bool:
    """Whether `model` comes near protobuf's limit of two gigabytes."""
    return bool(model.ByteSize() > 2**30)
