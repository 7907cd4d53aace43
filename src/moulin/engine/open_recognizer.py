"""From a model directory to a recognizer that is ready."""

from __future__ import annotations

from pathlib import Path

from moulin.bundle.files import Precision
from moulin.bundle.load import load_bundle
from moulin.decoding.options import DecodingOptions
from moulin.engine.onnxruntime_runner import OnnxRuntimeRunner
from moulin.engine.recognizer import MAX_AUDIO_SEC, TAIL_PADDING_SEC, Recognizer


def open_recognizer(
    model: Path,
    *,
    precision: Precision | None = None,
    device: str = "cpu",
    threads: int | None = None,
    workers: int | None = None,
    options: DecodingOptions | None = None,
    tail_padding_sec: float = TAIL_PADDING_SEC,
    max_audio_sec: float = MAX_AUDIO_SEC,
) -> Recognizer:
    """Load the offline model in `model`; see `OnnxRuntimeRunner` and `Recognizer` for the options.

    Raises BundleError, EngineError or OptionsError.
    """
    spec = load_bundle(model, precision=precision, expect="offline")
    return Recognizer(
        spec,
        OnnxRuntimeRunner(spec, device=device, threads=threads, workers=workers),
        options=options,
        tail_padding_sec=tail_padding_sec,
        max_audio_sec=max_audio_sec,
    )
