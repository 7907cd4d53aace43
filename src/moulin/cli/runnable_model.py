"""From what is named in place of MODEL to files that the chosen engine runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moulin.bundle.files import Precision
    from moulin.engine.engines import Engine


def runnable_model(
    model: Path, *, engine: Engine | None, precision: Precision | None, device: str, streaming: bool
) -> Path:
    """A folder, or an encoder or checkpoint file. What is published elsewhere is fetched; a checkpoint is exported into
    the cache, for `streaming` or for whole utterances, where the `engine` that was asked for runs ONNX files.

    Raises BundleError, OptionsError, EngineError or FetchError.
    """
    from moulin.bundle.checkpoint_files import is_checkpoint
    from moulin.cli.export import exported_model
    from moulin.cli.fetch import local_model
    from moulin.engine.engines import device_of, file_precision
    from moulin.engine.open_tensorrt import check_tensorrt
    from moulin.engine.precisions import check_precision

    check_precision(engine, precision)
    if engine == "tensorrt":  # before anything is fetched or exported for it
        check_tensorrt(device_of(engine, device))
    wanted = file_precision(engine, precision)
    folder = local_model(model, wanted)
    if engine in ("onnxruntime", "tensorrt") and is_checkpoint(folder):
        return exported_model(folder, streaming=streaming, precision=wanted)
    return folder
