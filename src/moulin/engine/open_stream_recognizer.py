"""From a model directory to a streaming recognizer that is ready."""

from __future__ import annotations

from pathlib import Path

from moulin.bundle.files import Precision
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.engine.onnxruntime_stream_runner import MAX_STREAMS, OnnxRuntimeStreamRunner
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.stream_runner import StreamRunner
from moulin.streaming.options import StreamOptions


def open_stream_recognizer(
    model: Path,
    *,
    precision: Precision | None = None,
    device: str = "cpu",
    threads: int | None = None,
    workers: int | None = None,
    max_streams: int = MAX_STREAMS,
    max_batch: int | None = None,
    options: StreamOptions | None = None,
) -> StreamRecognizer:
    """Load the streaming model in `model`, ONNX files or a checkpoint; see `OnnxRuntimeStreamRunner` and
    `StreamRecognizer` for the options.

    Raises BundleError, EngineError or OptionsError.
    """
    spec = load_model(model, precision=precision, expect="streaming")
    return StreamRecognizer(spec, _runner(spec, device, threads, workers, max_streams, max_batch), options=options)


def _runner(
    spec: ModelSpec, device: str, threads: int | None, workers: int | None, capacity: int, max_batch: int | None
) -> StreamRunner:
    match spec:
        case CheckpointSpec():
            from moulin.engine.torch_stream_runner import TorchStreamRunner

            return TorchStreamRunner(spec, device=device, threads=threads, capacity=capacity, max_batch=max_batch)
        case OnnxModelSpec():
            return OnnxRuntimeStreamRunner(
                spec, device=device, threads=threads, workers=workers, capacity=capacity, max_batch=max_batch
            )
    raise TypeError(f"No engine runs a {type(spec).__name__}")
