"""Imports that a room must not cause: `moulin --help` is instant, and a client needs no engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENGINE = {"onnxruntime", "onnx", "torch", "kaldi_native_fbank", "tensorrt"}


@pytest.mark.parametrize(
    ("module", "barred"),
    [
        (
            "moulin.cli.app",
            ENGINE
            | {"huggingface_hub", "numpy", "rich", "tritonclient", "soundfile", "soxr", "grpc", "pytriton", "pyarrow"},
        ),
        ("moulin.client", ENGINE | {"soundfile", "soxr", "av", "pytriton", "moulin.engine", "moulin.bundle"}),
        ("moulin.bundle.load", {"onnxruntime", "torch", "tritonclient", "soundfile"}),
        ("moulin.decoding.search", {"onnxruntime", "onnx", "torch", "moulin.bundle", "moulin.audio"}),
        ("moulin.models.engines", {"onnxruntime", "torch", "moulin.audio", "tritonclient"}),
        ("moulin.models.open_recognizer", {"torch", "tritonclient", "moulin.client", "moulin.cli"}),
        (
            "moulin.gateway.server",
            ENGINE | {"moulin.engine", "moulin.bundle", "soundfile", "soxr", "av", "opentelemetry"},
        ),
        ("moulin.bulk.local.decoding_process", ENGINE | {"tritonclient"}),
        ("moulin.long_audio.pieces", ENGINE | {"soundfile", "soxr", "tritonclient", "moulin.engine"}),
        ("moulin.transcript_formats", {"numpy", *ENGINE}),
    ],
)
def test_importing(module: str, barred: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert not barred & set(loaded)


def test_the_client_waits_for_nothing_heavy_to_be_used() -> None:
    """An engine is loaded where a recognizer is created, not where it is imported."""
    code = "import sys; from moulin.engine.recognizer import Recognizer; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"onnxruntime", "onnx", "kaldi_native_fbank"} & set(loaded)
