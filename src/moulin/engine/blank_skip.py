"""The check of requests to skip blank frames (`moulin.decoding.blank_skip`)."""

from __future__ import annotations

from moulin.bundle.spec import ModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError


def check_blank_skip(spec: ModelSpec, options: DecodingOptions | None) -> None:
    """Raises OptionsError where `options` ask for it and `spec` has no CTC head beside the transducer that is
    decoded."""
    if options is None or options.blank_skip is None or spec.has_ctc_head:
        return
    if spec.head == "ctc":
        raise OptionsError(
            "Expected no blank_skip: it skips frames of a transducer's search, and here the CTC head itself is decoded",
            hint="leave out --head ctc, or the option",
        )
    raise OptionsError(
        f"Expected no blank_skip, which needs a CTC head beside the transducer, and {spec.name} has none",
        hint="Icefall's own ONNX files have each head in an encoder of its own; `moulin export` of a checkpoint "
        "that was trained with --use-ctc keeps it",
    )
