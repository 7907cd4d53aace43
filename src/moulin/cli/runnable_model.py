"""Files that the chosen engine runs, for the path or name given as MODEL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from moulin.errors import BundleError, OptionsError

if TYPE_CHECKING:
    from moulin.bundle.choice import Mode
    from moulin.cli.fetch import LocalModel
    from moulin.encoders.recipe import Recipe
    from moulin.models.engine_choice import EngineChoice


def runnable_model(model: Path, engine: EngineChoice, *, streaming: bool, language: str | None = None) -> Path:
    """A folder, or an encoder or checkpoint file. A published model is fetched; a checkpoint is exported into the
    cache, for `streaming` or for whole utterances, where the `engine` that was asked for runs ONNX files.

    Raises BundleError, OptionsError, EngineError or FetchError.
    """
    mode: Mode = "streaming" if streaming else "offline"
    return runnable_of_mode(model, engine, mode=mode, language=language).path


def runnable_of_mode(
    model: Path,
    engine: EngineChoice,
    *,
    mode: Mode | None,
    language: str | None = None,
    onnx_only: bool = False,
    recipe: Recipe | None = None,
) -> LocalModel:
    """`runnable_model` for a verb that serves both kinds: without a `mode` it follows from the files' names, and is
    None where they do not tell. Facts in `recipe` are kept with a copy of the checkpoint (`chosen_model`)."""
    from moulin.bundle.checkpoint_files import is_checkpoint
    from moulin.cli.chosen_model import chosen_model
    from moulin.cli.export import exported_model
    from moulin.cli.fetch import LocalModel, local_model
    from moulin.cli.wish import wish_of
    from moulin.models.engines import RUNTIMES
    from moulin.models.precisions import check_precision

    check_precision(engine)
    if engine.kind == "tensorrt":  # before anything is fetched or exported for it
        RUNTIMES[engine.kind].check(engine.runs_on)
    wish = wish_of(engine, mode=mode, language=language, onnx_only=onnx_only)
    try:
        found = local_model(model, wish)
    except BundleError:
        if not engine.may_be_gpu_engine or wish.precision is None:
            raise
        found = local_model(model, replace(wish, precision=None))  # weights in any precision run in any other
    path = found.path
    if is_checkpoint(path, preferred=engine.prefers_checkpoint):
        path = chosen_model([path], recipe=recipe)
    elif recipe is not None:
        raise OptionsError(
            f"{', '.join(_flags(recipe))}: for what a checkpoint does not tell, and {path} holds ONNX files",
            hint="leave them out, or take the checkpoint beside the files with --engine torch",
        )
    if engine.named is not None and RUNTIMES[engine.named].form == "onnx" and is_checkpoint(path):
        path = exported_model(path, streaming=found.mode == "streaming", precision=engine.file_precision)
    return LocalModel(path, found.mode)


def _flags(recipe: Recipe) -> list[str]:
    from moulin.bundle.facts import FLAGS

    return [flag for name, flag in FLAGS.items() if getattr(recipe, name) is not None]
