"""From what is named in place of MODEL to files that the chosen engine runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moulin.errors import OptionsError

if TYPE_CHECKING:
    from moulin.bundle.files import Precision
    from moulin.encoders.recipe import Recipe
    from moulin.engine.engines import Engine


def runnable_model(
    model: Path,
    *,
    engine: Engine | None,
    precision: Precision | None,
    device: str,
    streaming: bool,
    recipe: Recipe | None = None,
) -> Path:
    """A folder, or an encoder or checkpoint file. What is published elsewhere is fetched; a checkpoint is exported into
    the cache, for `streaming` or for whole utterances, where the `engine` that was asked for runs ONNX files. What
    `recipe` says of a checkpoint is kept with a copy of it in the cache (`chosen_model`).

    Raises BundleError, OptionsError, EngineError or FetchError.
    """
    from moulin.bundle.checkpoint_files import is_checkpoint
    from moulin.cli.chosen_model import chosen_model
    from moulin.cli.export import exported_model
    from moulin.cli.fetch import local_model
    from moulin.engine.engines import device_of, file_precision
    from moulin.engine.open_tensorrt import check_tensorrt

    if engine == "tensorrt":  # before anything is fetched or exported for it
        check_tensorrt(device_of(engine, device))
    wanted = file_precision(engine, precision)
    folder = local_model(model, wanted)
    if is_checkpoint(folder, preferred=engine == "torch"):
        folder = chosen_model([folder], recipe=recipe)
    elif recipe is not None:
        raise OptionsError(
            f"{', '.join(_flags(recipe))}: for what a checkpoint does not tell, and {folder} holds ONNX files",
            hint="leave them out, or take the checkpoint beside the files with --engine torch",
        )
    if engine in ("onnxruntime", "tensorrt") and is_checkpoint(folder):
        return exported_model(folder, streaming=streaming, precision=wanted)
    return folder


def _flags(recipe: Recipe) -> list[str]:
    from moulin.bundle.facts import FLAGS

    return [flag for name, flag in FLAGS.items() if getattr(recipe, name) is not None]
