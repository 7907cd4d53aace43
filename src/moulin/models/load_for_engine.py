"""Loading of a model in the form that the chosen engine runs, with every open choice made."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from moulin.bundle.checkpoint_files import is_checkpoint
from moulin.bundle.choice import Mode
from moulin.bundle.ctc_model import load_onnx_model
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.models.engine_choice import EngineChoice
from moulin.models.files_on_gpu import why_not_on_gpu_engine
from moulin.models.precisions import check_precision, settled

logger = logging.getLogger(__name__)


def load_for_engine(model: Path, choice: EngineChoice, expect: Mode | None) -> tuple[ModelSpec, EngineChoice]:
    """The model in `model`, ONNX files or a checkpoint, and `choice` as `settled` completes it.

    Where no engine is chosen, ONNX files run on our GPU engine on a GPU, or on ONNX Runtime with a warning that says
    why not. Raises BundleError, EngineError or OptionsError.
    """
    check_precision(choice)
    if choice.may_be_gpu_engine and not is_checkpoint(model):
        spec = load_onnx_model(model, expect=expect, head=choice.head)
        if isinstance(spec, OnnxModelSpec):
            reason = why_not_on_gpu_engine(spec, choice.device)
            if reason is None:
                return settled(spec, replace(choice, kind="torch"))
            logger.warning("%s runs on ONNX Runtime, not on our GPU engine: %s", spec.name, reason)
    loaded = load_model(
        model,
        precision=choice.file_precision,
        expect=expect,
        prefer_checkpoint=choice.prefers_checkpoint,
        head=choice.head,
    )
    return settled(loaded, choice)
