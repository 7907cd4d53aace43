"""From a model directory to a streaming recognizer that is ready."""

from __future__ import annotations

from pathlib import Path

from moulin.bundle.files import Precision
from moulin.bundle.load import load_bundle
from moulin.engine.onnxruntime_stream_runner import MAX_STREAMS, OnnxRuntimeStreamRunner
from moulin.engine.stream_recognizer import StreamRecognizer
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
    """Load the streaming model in `model`; see `OnnxRuntimeStreamRunner` and `StreamRecognizer` for the options.

    Raises BundleError, EngineError or OptionsError.
    """
    spec = load_bundle(model, precision=precision, expect="streaming")
    runner = OnnxRuntimeStreamRunner(
        spec, device=device, threads=threads, workers=workers, capacity=max_streams, max_batch=max_batch
    )
    return StreamRecognizer(spec, runner, options=options)
