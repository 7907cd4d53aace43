"""From whatever people have, ONNX files or a checkpoint, to a `ModelSpec`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from moulin.bundle.checkpoint_files import is_checkpoint, require_torch
from moulin.bundle.files import Precision
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import ModelSpec
from moulin.errors import OptionsError

CHECKPOINT_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
"""What a checkpoint can be run in by one engine or another: `moulin.models.precisions` knows which."""


def load_model(
    model: Path,
    *,
    precision: Precision | None = None,
    expect: Literal["offline", "streaming"] | None = None,
    prefer_checkpoint: bool = False,
) -> ModelSpec:
    """`load_bundle`, or for a checkpoint `load_checkpoint_spec`. A checkpoint is what is expected of it, offline where
    nothing is. Of a folder with both the ONNX files are meant, unless `prefer_checkpoint`.

    Raises BundleError, OptionsError, and EngineError where a checkpoint is there and PyTorch is not.
    """
    if not is_checkpoint(model, preferred=prefer_checkpoint):
        return load_bundle(model, precision=precision, expect=expect)
    if precision not in (None, *CHECKPOINT_PRECISIONS):
        raise OptionsError(
            f"Expected a precision of {', '.join(CHECKPOINT_PRECISIONS)} for the checkpoint {model}, got {precision}",
            hint="--engine onnxruntime exports it, and runs it in int8 too",
        )
    require_torch()
    from moulin.bundle.checkpoint_spec import load_checkpoint_spec

    return replace(load_checkpoint_spec(model, streaming=expect == "streaming"), run_in=precision)
