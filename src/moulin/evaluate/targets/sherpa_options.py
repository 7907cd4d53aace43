"""Inputs of the peer, sherpa-onnx: ONNX files, a CPU, and its own names of decoding methods."""

from __future__ import annotations

from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.evaluate.targets.target import ServerSettings, needed

_METHODS = {"greedy": "greedy_search"}


def onnx(spec: ModelSpec | None) -> OnnxModelSpec:
    """`spec` as a model of ONNX files, which is all that the peer takes. Raises OptionsError."""
    spec = needed(spec)
    if not isinstance(spec, OnnxModelSpec):
        raise OptionsError("sherpa-onnx takes ONNX files, not a checkpoint", hint="leave it out of --targets")
    return spec


def check_cpu(device: str) -> None:
    """Raises OptionsError for any other device than the CPU."""
    if device != "cpu":
        raise OptionsError("sherpa-onnx as PyPI has it runs on the CPU only", hint="leave it out of --targets")


def decoding_of(settings: ServerSettings) -> tuple[str, int]:
    """The peer's name of the decoding method, and the beam."""
    options = DecodingOptions().updated(settings.decoding)
    return _METHODS.get(options.method, options.method), options.beam
