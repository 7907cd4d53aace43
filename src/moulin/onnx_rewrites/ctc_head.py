"""Encoders without the CTC head that `moulin export` keeps, for runtimes that do not use it."""

from __future__ import annotations

from onnx import ModelProto

from moulin.bundle.onnx_files import CTC_OUTPUT
from moulin.onnx_rewrites.dead_nodes import remove_dead_nodes


def drop_ctc_head(model: ModelProto) -> None:
    """Remove the CTC head's output from `model`, and what only it needs; changes nothing where there is none."""
    for output in model.graph.output:
        if output.name == CTC_OUTPUT:
            model.graph.output.remove(output)
            remove_dead_nodes(model)
            return
