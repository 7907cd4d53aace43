"""Loading of a model in the form that the chosen engine runs, with every open choice made."""

from __future__ import annotations

from pathlib import Path

from moulin.bundle.choice import Mode
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import ModelSpec
from moulin.models.engine_choice import EngineChoice
from moulin.models.precisions import check_precision, settled


def load_for_engine(model: Path, choice: EngineChoice, expect: Mode | None) -> tuple[ModelSpec, EngineChoice]:
    """The model in `model`, ONNX files or a checkpoint, and `choice` as `settled` completes it.

    Raises BundleError, EngineError or OptionsError.
    """
    check_precision(choice)
    spec = load_model(
        model,
        precision=choice.file_precision,
        expect=expect,
        prefer_checkpoint=choice.prefers_checkpoint,
        head=choice.head,
    )
    return settled(spec, choice)
