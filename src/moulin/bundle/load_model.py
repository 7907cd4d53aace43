"""Reading of ONNX files or a checkpoint as a `ModelSpec`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from moulin.bundle.checkpoint_files import is_checkpoint, require_torch
from moulin.bundle.choice import Head
from moulin.bundle.ctc_model import load_onnx_model
from moulin.bundle.files import Precision
from moulin.bundle.spec import ModelSpec
from moulin.errors import OptionsError

CHECKPOINT_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
"""The precisions in which any engine can run a checkpoint; `moulin.models.precisions` lists them by engine."""


def load_model(
    model: Path,
    *,
    precision: Precision | None = None,
    expect: Literal["offline", "streaming"] | None = None,
    prefer_checkpoint: bool = False,
    head: Head | None = None,
) -> ModelSpec:
    """`load_onnx_model`, or for a checkpoint `load_checkpoint_spec` in the mode `expect`, offline by default. In a
    folder with both the ONNX files are loaded, unless `prefer_checkpoint`.

    Raises BundleError, OptionsError, and EngineError for a checkpoint where PyTorch is not installed.
    """
    if not is_checkpoint(model, preferred=prefer_checkpoint):
        return load_onnx_model(model, precision=precision, expect=expect, head=head)
    if precision not in (None, *CHECKPOINT_PRECISIONS):
        raise OptionsError(
            f"Expected a precision of {', '.join(CHECKPOINT_PRECISIONS)} for the checkpoint {model}, got {precision}",
            hint="--engine onnxruntime exports it, and runs it in int8 too",
        )
    require_torch()
    from moulin.bundle.checkpoint_spec import load_checkpoint_spec

    return replace(load_checkpoint_spec(model, streaming=expect == "streaming", head=head), run_in=precision)
