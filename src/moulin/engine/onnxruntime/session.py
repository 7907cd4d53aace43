"""ONNX Runtime sessions with the CPU or CUDA execution provider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from moulin.bundle.files import Precision
from moulin.bundle.onnx_graph import OnnxGraph, TensorSpec
from moulin.engine.device import gpu_index
from moulin.engine.onnxruntime.operators import operators_library
from moulin.errors import EngineError, first_line
from moulin.extras import install_hint
from moulin.onnx_rewrites.depthwise import rewrite_depthwise, widen_depthwise
from moulin.onnx_rewrites.fixed_shapes import fix_shapes
from moulin.onnx_rewrites.mask_length import tell_mask_length_by_shape
from moulin.onnx_rewrites.merged_constants import merge_constants
from moulin.onnx_rewrites.pointwise import rewrite_pointwise
from moulin.onnx_rewrites.relative_shift import shift_without_gather
from moulin.onnx_rewrites.swoosh import rewrite_swoosh
from moulin.onnx_rewrites.swoosh_operator import has_operator, swoosh_in_one_operator, takes_operator

if TYPE_CHECKING:
    import onnxruntime


def check_provider(device: str) -> None:
    """Raise OptionsError where `device` is no device, and EngineError where this ONNX Runtime cannot use it."""
    if device != "cpu":
        _providers(device, _onnxruntime().get_available_providers())


def run(
    session: onnxruntime.InferenceSession, outputs: list[str], values: Sequence[tuple[TensorSpec, NDArray[Any]]]
) -> list[NDArray[Any]]:
    inputs = {tensor.name: value.astype(tensor.dtype, copy=False) for tensor, value in values}
    try:
        return session.run(outputs, inputs)  # type: ignore[no-any-return]
    except Exception as error:  # ONNX Runtime has many exception types and no common base but this one
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
        raise EngineError(f"ONNX Runtime failed on {shapes}: {first_line(error)}") from error


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise EngineError(
            "Running a model needs ONNX Runtime, which is not installed",
            hint=f"{install_hint('engine')}, or '.[engine-gpu]' on a machine with an NVIDIA GPU",
        ) from error
    return onnxruntime


def rewritten_encoder(
    encoder: OnnxGraph, precision: Precision, device: str, *, fixed_shapes: bool = False
) -> bytes | None:
    """The encoder rewritten to run faster on `device`, for `new_session`; None where it is not rewritten."""
    if encoder.external_files:
        return None  # weights in external files, usually large: ONNX Runtime reads them in place
    import onnx

    model = onnx.load(encoder.file)
    rewritten = rewrite_swoosh(model) + tell_mask_length_by_shape(model)
    if device == "cpu":
        rewritten += merge_constants(model) + shift_without_gather(model)
        rewritten += fix_shapes(model) + rewrite_pointwise(model) + rewrite_depthwise(model)
        if takes_operator(model) and operators_library() is not None:
            rewritten += swoosh_in_one_operator(model)
    elif precision == "fp16" and not fixed_shapes:
        rewritten += widen_depthwise(model)
    return model.SerializeToString() if rewritten else None


def plain_session(file: Path) -> onnxruntime.InferenceSession:
    """A session on one CPU thread of the model in `file` without any optimisation: soon loaded, slow, and the least
    likely to be wrong. Raises ONNX Runtime's exceptions."""
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def new_session(
    file: Path,
    device: str,
    threads: int,
    content: bytes | None = None,
    *,
    few_shapes: bool = False,
    fixed_shapes: bool = False,
    precision: Precision = "fp32",
) -> onnxruntime.InferenceSession:
    """A session of the model in `file`, or of `content` instead.

    `precision` is the model's: ONNX Runtime 1.32 ends the process when it lays out some half-precision convolutions for
    a CPU, so that optimisation is disabled for fp16.

    `few_shapes` enables ONNX Runtime's memory plans, 3 % faster for batches of a streaming encoder. It keeps a plan for
    every input shape ever seen, and lengths of whole recordings hardly repeat. `fixed_shapes` allows a GPU a long
    search for the fastest kernels at every new shape.
    """
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised as exceptions too
    options.enable_mem_pattern = few_shapes
    if threads > 1:
        # Threads that wait by spinning take cores from features, search and other requests: a call by two threads
        # (digits-en, three seconds, two busy CPUs) cost 45 ms of CPU time and 12 more after it, without spinning 28.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if precision == "fp16" and device == "cpu":
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # session.set_denormal_as_zero is not set: the first session of a process would leave the thread that creates it
    # with denormals as zeros, and digits-en is not faster with it, on speech or silence.
    providers = _providers(device, onnxruntime.get_available_providers(), fixed_shapes=fixed_shapes)
    library = operators_library() if content is not None and has_operator(content) else None
    try:
        if library is not None:
            options.register_custom_ops_library(str(library))
        session = onnxruntime.InferenceSession(content or file, options, providers=providers)
    except Exception as error:  # as in `run`
        raise EngineError(f"ONNX Runtime cannot load {file}: {first_line(error)}") from error
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if wanted not in session.get_providers():
        raise EngineError(
            f"ONNX Runtime could not start {wanted} and would have run on the CPU",
            hint="check that the CUDA and cuDNN libraries it was built for are installed and on LD_LIBRARY_PATH",
        )
    return session


def _providers(device: str, available: list[str], *, fixed_shapes: bool = False) -> list[Any]:
    index = gpu_index(device)
    if index is None:
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in available:
        raise EngineError(
            f"This ONNX Runtime has no CUDA provider, only {', '.join(available)}",
            hint=f"pip uninstall onnxruntime; then {install_hint('engine-gpu')}",
        )
    cuda = {
        "device_id": index,
        # With a new shape in nearly every batch, the search for the fastest convolutions costs most of a second each
        # (a Conformer of 77 M in half precision, H200), and two with one-dimensional convolutions laid out as 2-D.
        "cudnn_conv_algo_search": "EXHAUSTIVE" if fixed_shapes else "HEURISTIC",
        "cudnn_conv1d_pad_to_nc1d": "1" if fixed_shapes else "0",
    }
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]
