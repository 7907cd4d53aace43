"""From what is named in place of MODEL to files that the chosen engine runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moulin.errors import OptionsError

if TYPE_CHECKING:
    from moulin.bundle.choice import Mode
    from moulin.bundle.precision import Precision
    from moulin.cli.fetch import LocalModel
    from moulin.encoders.recipe import Recipe
    from moulin.models.engines import Engine


def runnable_model(
    model: Path,
    *,
    engine: Engine | None,
    precision: Precision | None,
    device: str,
    streaming: bool,
    language: str | None = None,
) -> Path:
    """A folder, or an encoder or checkpoint file. What is published elsewhere is fetched; a checkpoint is exported into
    the cache, for `streaming` or for whole utterances, where the `engine` that was asked for runs ONNX files.

    Raises BundleError, OptionsError, EngineError or FetchError.
    """
    return runnable_of_mode(
        model,
        engine=engine,
        precision=precision,
        device=device,
        mode="streaming" if streaming else "offline",
        language=language,
    ).path


def runnable_of_mode(
    model: Path,
    *,
    engine: Engine | None,
    precision: Precision | None,
    device: str,
    mode: Mode | None,
    language: str | None = None,
    onnx_only: bool = False,
    recipe: Recipe | None = None,
) -> LocalModel:
    """`runnable_model` for a verb that serves both kinds: without a `mode` it is what the files' names tell, and
    None where they tell nothing. What `recipe` says of a checkpoint is kept with a copy of it in the cache
    (`chosen_model`)."""
    from moulin.bundle.checkpoint_files import is_checkpoint
    from moulin.cli.chosen_model import chosen_model
    from moulin.cli.export import exported_model
    from moulin.cli.fetch import LocalModel, local_model
    from moulin.cli.wish import wish_of
    from moulin.models.engines import device_of, file_precision
    from moulin.models.precisions import check_precision
    from moulin.tensorrt_engine.ready_plan import check_tensorrt

    check_precision(engine, precision)
    if engine == "tensorrt":  # before anything is fetched or exported for it
        check_tensorrt(device_of(engine, device))
    wanted = file_precision(engine, precision)
    wish = wish_of(precision=wanted, device=device, engine=engine, mode=mode, language=language, onnx_only=onnx_only)
    found = local_model(model, wish)
    path = found.path
    if is_checkpoint(path, preferred=engine == "torch"):
        path = chosen_model([path], recipe=recipe)
    elif recipe is not None:
        raise OptionsError(
            f"{', '.join(_flags(recipe))}: for what a checkpoint does not tell, and {path} holds ONNX files",
            hint="leave them out, or take the checkpoint beside the files with --engine torch",
        )
    if engine in ("onnxruntime", "tensorrt") and is_checkpoint(path):
        path = exported_model(path, streaming=found.mode == "streaming", precision=wanted)
    return LocalModel(path, found.mode)


def _flags(recipe: Recipe) -> list[str]:
    from moulin.bundle.facts import FLAGS

    return [flag for name, flag in FLAGS.items() if getattr(recipe, name) is not None]
