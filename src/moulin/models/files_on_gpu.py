"""Whether our GPU engine runs ONNX files: it needs the weights in them, and a network that it knows."""

from __future__ import annotations

import importlib.util

from moulin.bundle.spec import OnnxModelSpec
from moulin.errors import BundleError, EngineError, OptionsError
from moulin.gpu.families import contexts_fit
from moulin.models.engines import check_gpu_engine


def why_not_on_gpu_engine(spec: OnnxModelSpec, device: str) -> str | None:
    """Why our GPU engine does not run `spec` on `device`, a clause; None where it does."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    reason = why_not_its_network(spec)
    if reason is not None:
        return reason
    try:
        check_gpu_engine(device)
        if spec.streaming is not None:
            _check_chunks(spec)
    except (EngineError, OptionsError) as error:
        return error.message
    return None


def _check_chunks(spec: OnnxModelSpec) -> None:
    """Raises EngineError for a chunk or left context that the kernels do not take."""
    from moulin.bundle.onnx_weights.load import OnnxWeights
    from moulin.gpu.open_encoder import check_stream_sizes

    weights = OnnxWeights(spec)
    check_stream_sizes(weights.family, weights.arrays, weights.recipe)


def why_not_its_network(spec: OnnxModelSpec) -> str | None:
    """`why_not_on_gpu_engine` on a machine that has all that is needed."""
    from moulin.bundle.onnx_weights.load import OnnxWeights

    if not contexts_fit(spec.vocab_size, spec.context_size):
        return f"it numbers contexts with 64 bits, too few for {spec.context_size} of {spec.vocab_size} tokens"
    try:
        OnnxWeights(spec)
    except BundleError as error:
        return error.message
    return None
