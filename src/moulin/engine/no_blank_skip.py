"""The error of a request to skip blank frames that a recognizer cannot fulfil."""

from __future__ import annotations

from moulin.bundle.spec import ModelSpec
from moulin.errors import OptionsError


def no_blank_skip(spec: ModelSpec) -> OptionsError:
    """`spec` is the recognizer's model: without a CTC head, or on an engine that does not compute it."""
    if spec.head == "ctc":
        return OptionsError(
            "Expected no blank_skip: it skips frames of a transducer's search, and here the CTC head itself is decoded",
            hint="leave out --head ctc, or the option",
        )
    if spec.has_ctc_head:
        return OptionsError(
            "Expected no blank_skip: what runs this model does not compute its CTC head",
            hint="ONNX Runtime, PyTorch, and our GPU engine for recordings do; TensorRT, our GPU engine for streams "
            "and the layout ensemble do not",
        )
    return OptionsError(
        f"Expected no blank_skip, which needs a CTC head beside the transducer, and {spec.name} has none",
        hint="Icefall's own ONNX files have each head in an encoder of its own; `moulin export` of a checkpoint "
        "that was trained with --use-ctc keeps it",
    )
