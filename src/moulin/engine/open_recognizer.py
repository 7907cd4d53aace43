"""From a model directory to a recognizer that is ready."""

from __future__ import annotations

from pathlib import Path

from moulin.bundle.files import Precision
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.engine.engines import Engine, choose_engine
from moulin.engine.features import MAX_AUDIO_SEC, TAIL_PADDING_SEC
from moulin.engine.onnxruntime_runner import OnnxRuntimeRunner
from moulin.engine.recognizer import Recognizer
from moulin.engine.runner import Runner


def open_recognizer(
    model: Path,
    *,
    precision: Precision | None = None,
    engine: Engine | None = None,
    device: str = "cpu",
    threads: int | None = None,
    workers: int | None = None,
    options: DecodingOptions | None = None,
    tail_padding_sec: float = TAIL_PADDING_SEC,
    max_audio_sec: float = MAX_AUDIO_SEC,
) -> Recognizer:
    """Load the offline model in `model`, ONNX files or a checkpoint; see `choose_engine`, `OnnxRuntimeRunner` and
    `Recognizer` for the options.

    Raises BundleError, EngineError or OptionsError.
    """
    spec = load_model(model, precision=precision, expect="offline", prefer_checkpoint=engine == "torch")
    return Recognizer(
        spec,
        open_runner(spec, engine, device=device, threads=threads, workers=workers),
        options=options,
        tail_padding_sec=tail_padding_sec,
        max_audio_sec=max_audio_sec,
    )


def open_runner(
    spec: ModelSpec,
    engine: Engine | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    workers: int | None = None,
) -> Runner:
    """What runs the networks of the offline model `spec`. Raises as `open_recognizer` does."""
    match choose_engine(spec, engine), spec:
        case "torch", CheckpointSpec():
            from moulin.engine.torch_runner import TorchRunner

            return TorchRunner(spec, device=device, threads=threads)
        case "onnxruntime", OnnxModelSpec():
            return OnnxRuntimeRunner(spec, device=device, threads=threads, workers=workers)
        case chosen, _:
            raise TypeError(f"{chosen} does not run a {type(spec).__name__}")
