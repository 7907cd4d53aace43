"""Whether our GPU engine runs ONNX files: it needs the weights in them, and a network that it knows."""

from __future__ import annotations

import importlib.util

from moulin.bundle.spec import OnnxModelSpec
from moulin.errors import BundleError, EngineError, OptionsError
from moulin.gpu.families import MAX_CONTEXT_SIZE
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

    if spec.context_size > MAX_CONTEXT_SIZE:
        return f"it knows decoders that see up to {MAX_CONTEXT_SIZE} tokens, and this one sees {spec.context_size}"
    try:
        OnnxWeights(spec)
    except BundleError as error:
        return error.message
    return None
