"""Encoders with a CTC head, with the outputs that their search reads and no others."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from moulin.bundle.onnx_files import CTC_OUTPUT
from moulin.bundle.spec import ExportedSpec
from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes

BLANK_OUTPUT = "blank_log_probs"
"""The log-probability of blank by the CTC head beside a transducer, [N, T', 1], by which blank frames are skipped."""


def has_other_outputs(spec: ExportedSpec) -> bool:
    """Whether the encoder of `spec` has outputs that `keep_searched_outputs` changes."""
    return spec.ctc_output is not None or spec.out == CTC_OUTPUT


def keep_searched_outputs(model: ModelProto, spec: ExportedSpec) -> None:
    """Reduce the outputs of `model`, the encoder of `spec`, in place: of the head beside a transducer to BLANK_OUTPUT,
    and where the head itself is decoded to its log-probabilities, without the frames for a joiner.

    Changes nothing where there is one head.
    """
    if spec.ctc_output is not None:
        _keep_blank_alone(model, spec.ctc_output)
    elif spec.out == CTC_OUTPUT:
        _remove_output(model, "encoder_out")
        remove_dead_nodes(model)


def _keep_blank_alone(model: ModelProto, log_probs: str) -> None:
    graph = model.graph
    blank = numpy_helper.from_array(np.array([0]), f"{BLANK_OUTPUT}/token")
    graph.initializer.append(blank)
    graph.node.append(helper.make_node("Gather", [log_probs, blank.name], [BLANK_OUTPUT], axis=2))
    elem_type, shape = _remove_output(model, log_probs)
    graph.output.append(helper.make_tensor_value_info(BLANK_OUTPUT, elem_type, [*shape[:2], 1]))


def _remove_output(model: ModelProto, name: str) -> tuple[int, list[int | str]]:
    """Returns its type and shape."""
    (output,) = (output for output in model.graph.output if output.name == name)
    tensor = output.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim]
    model.graph.output.remove(output)
    return tensor.elem_type or TensorProto.FLOAT, shape
