"""The engines that run models, a line each in `RUNTIMES`, and the choice of one for a model and a device.

`open_recognizer` and `open_stream_recognizer` make them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

from moulin.bundle.choice import Form
from moulin.bundle.precision import Precision
from moulin.bundle.spec import CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.errors import EngineError, OptionsError
from moulin.models.engine_choice import Engine, EngineChoice

ENGINES: tuple[Engine, ...] = get_args(Engine)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Properties of an engine that hold for all models."""

    form: Form
    """The form on disk that it runs."""
    precisions: tuple[Precision, ...]
    """All precisions that it runs in; for a model and a device see `models.precisions`."""
    said: str
    """The beginning of a message that goes on with `in` and a precision."""
    check: Callable[[str], None]
    """Raises OptionsError or EngineError where it cannot run on a device."""


def _check_onnxruntime(device: str) -> None:
    from moulin.engine.onnxruntime.session import check_provider

    check_provider(device)


def _check_torch(device: str) -> None:
    from moulin.engine.torch.prediction import torch_device

    torch_device(device)


def _check_tensorrt(device: str) -> None:
    from moulin.tensorrt_engine.ready_plan import check_tensorrt

    check_tensorrt(device)


def _check_openvino(device: str) -> None:
    from moulin.engine.openvino.compiled import check_openvino

    check_openvino(device)


RUNTIMES: dict[Engine, Runtime] = {
    "onnxruntime": Runtime("onnx", ("fp32", "fp16", "int8"), "ONNX Runtime runs ONNX files", _check_onnxruntime),
    "torch": Runtime("checkpoint", ("fp32", "fp16", "bf16"), "PyTorch runs checkpoints", _check_torch),
    "tensorrt": Runtime("onnx", ("fp16", "bf16", "fp32"), "TensorRT builds its engines", _check_tensorrt),
    "openvino": Runtime("onnx", ("fp32", "bf16", "int8"), "OpenVINO runs ONNX files", _check_openvino),
}
"""All engines; the first one of a form runs it where no engine is asked for."""


def choose_engine(spec: ModelSpec, wanted: Engine | None = None) -> Engine:
    """`wanted`, or by default the first of `RUNTIMES` for the form that the model has on disk.

    PyTorch runs the network in a transducer's ONNX files too (`bundle.onnx_weights`). Raises OptionsError where the
    engine does not take that form.
    """
    form: Form = "checkpoint" if isinstance(spec, CheckpointSpec) else "onnx"
    if wanted is None:
        return next(engine for engine, runtime in RUNTIMES.items() if runtime.form == form)
    if wanted not in RUNTIMES:
        raise OptionsError(f"Expected an engine of {', '.join(ENGINES)}, got {wanted!r}")
    if RUNTIMES[wanted].form == form or (wanted == "torch" and isinstance(spec, OnnxModelSpec)):
        return wanted
    if form == "checkpoint":
        raise OptionsError(
            f"The engine {wanted} runs ONNX files, and {spec.file} is a checkpoint",
            hint="`moulin export` writes ONNX files of it; or leave out --engine",
        )
    raise OptionsError(
        f"The engine {wanted} runs transducers, and {spec.file} has a CTC head alone",
        hint="leave out --engine: ONNX Runtime runs it",
    )


def check_gpu_engine(device: str) -> None:
    """Raises OptionsError or EngineError where our GPU engine cannot run on `device`."""
    _check_torch(device)
    if importlib.util.find_spec("triton") is None:
        raise EngineError(
            "The GPU engine needs Triton-lang, which is not installed",
            hint="install PyTorch for CUDA, which brings it; --precision fp32 runs a checkpoint without",
        )


def check_engine(spec: ModelSpec, choice: EngineChoice) -> Engine:
    """The engine that will run `spec`, checked before anything is started.

    Raises OptionsError or EngineError where it does not work on the device.
    """
    kind = choose_engine(spec, choice.named)
    RUNTIMES[kind].check(replace(choice, kind=kind).runs_on)
    return kind
