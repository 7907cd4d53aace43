"""Loading of a model in the form that the chosen engine runs, with every open choice made."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from moulin.bundle.checkpoint_files import is_checkpoint
from moulin.bundle.choice import Mode
from moulin.bundle.ctc_model import load_onnx_model
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.errors import BundleError
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
    reason = None
    if choice.may_be_gpu_engine and not is_checkpoint(model):
        spec = load_onnx_model(model, expect=expect, head=choice.head)
        if isinstance(spec, OnnxModelSpec):
            reason = why_not_on_gpu_engine(spec, choice.device)
            if reason is None:
                return settled(spec, replace(choice, kind="torch"))
    try:
        loaded = load_model(
            model,
            precision=choice.file_precision,
            expect=expect,
            prefer_checkpoint=choice.prefers_checkpoint,
            head=choice.head,
        )
    except BundleError as error:
        if reason is None:
            raise
        raise BundleError(
            error.message, hint=f"leave out --precision; our GPU engine would run it in any, but: {reason}"
        ) from error
    if reason is not None:
        _warn(f"{loaded.name} runs on ONNX Runtime, not on our GPU engine: {reason}")
    return settled(loaded, choice)


@lru_cache
def _warn(line: str) -> None:
    """A warning once in a process: some commands load a model to look at it, and load it again to run it."""
    logger.warning(line)
