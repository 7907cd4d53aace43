"""The engine of a model's ONNX files on a GPU, which is built if it does not exist yet."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moulin.arrays import Floats
from moulin.bundle.files import Precision
from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.engine.features import model_max_sec
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.errors import EngineError, OptionsError, first_line
from moulin.extras import install_hint
from moulin.launch.cache import cache_dir

if TYPE_CHECKING:
    import torch

    from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
    from moulin.tensorrt_engine.plan_file import PlanPrecision

MAX_BATCH = 64

Say = Callable[[str], None]

Speech = Callable[[], Sequence[Floats]]
"""A function that returns waveforms for the drift check of a new engine: float32 [n] each, 16 kHz."""


def _silent(_text: str) -> None:
    pass


def tensorrt_module() -> Any:
    """TensorRT's Python package. Raises EngineError where it is not installed or older than 10."""
    try:
        tensorrt = importlib.import_module("tensorrt")
    except ImportError as error:
        raise EngineError(
            f"The engine tensorrt needs TensorRT's Python package, which cannot be loaded: {first_line(error)}",
            hint="pip install tensorrt, or leave out --engine: ONNX Runtime runs the model with --device cuda",
        ) from error
    if int(tensorrt.__version__.partition(".")[0]) < 10:
        raise EngineError(f"The engine tensorrt needs TensorRT 10 or later, got {tensorrt.__version__}")
    return tensorrt


def check_tensorrt(device: str) -> None:
    """Raise EngineError where TensorRT, PyTorch or the GPU is missing, and OptionsError for a device that is no GPU."""
    _module_and_gpu(device)


def plan_precision(precision: Precision | None) -> PlanPrecision:
    """The precision of an engine, fp16 by default. Raises OptionsError."""
    from moulin.tensorrt_engine.plan_file import PLAN_PRECISIONS

    for known in PLAN_PRECISIONS:
        if known == (precision or "fp16"):
            return known
    raise OptionsError(f"Expected a precision of {', '.join(PLAN_PRECISIONS)} for TensorRT, got {precision}")


def ready_plan(
    spec: ModelSpec,
    *,
    device: str,
    speech: Speech,
    precision: Precision | None = None,
    max_batch: int | None = None,
    max_audio_sec: float = MAX_AUDIO_SEC,
    to: Path | None = None,
    say: Say = _silent,
) -> Path:
    """The engine of the model's encoder for the GPU `device`: from the folder `to` (by default in the cache), or built
    there, which takes minutes, and checked against ONNX Runtime.

    `say` receives lines about the progress. Raises OptionsError and EngineError.
    """
    from moulin.tensorrt_engine.build import build_plan, prepare
    from moulin.tensorrt_engine.builders import PythonBuilder

    wanted = plan_precision(precision)
    tensorrt, gpu = _module_and_gpu(device)
    limit = None if spec.streaming else min(max_audio_sec, model_max_sec(spec))
    prepared = prepare(spec, precision=wanted, max_batch=max_batch or MAX_BATCH, max_seconds=limit)
    assert isinstance(spec, OnnxModelSpec)
    check = drift_check(spec, wanted, speech, device=device, say=say)
    name = gpu_name(gpu)
    builder = PythonBuilder(tensorrt, say=say)
    say(f"The engine of {spec.name} for TensorRT {builder.version} on {name}, {wanted}: the first time takes minutes")
    return build_plan(spec, prepared, to or engines_folder(spec), builder, name, wanted, check=check)


def engines_folder(spec: ModelSpec) -> Path:
    """The cache folder of a model's engines."""
    return cache_dir() / "engines" / spec.path.name


def drift_check(
    spec: OnnxModelSpec, precision: PlanPrecision, speech: Speech, *, device: str, say: Say = _silent
) -> Callable[[Path], float]:
    """A function that measures the drift of an engine of `spec` (`measure_drift`).

    Raises EngineError where TensorRT cannot be called from Python here.
    """
    tensorrt, gpu = _module_and_gpu(device)

    def check(plan: Path) -> float:
        from moulin.tensorrt_engine.drift import measure_drift
        from moulin.tensorrt_engine.loaded_plan import TensorRtPlan

        drift = measure_drift(spec, TensorRtPlan(plan, tensorrt, gpu), precision, speech())
        say(f"It differs from ONNX Runtime by {drift:.2%} on speech, as {precision} may")
        return drift

    return check


def open_plan(spec: OnnxModelSpec, plan: Path, *, device: str) -> TensorRtPlan:
    """The engine in the file `plan`. Raises BundleError, and EngineError where it was built for another model, GPU or
    TensorRT version."""
    from moulin.tensorrt_engine.builders import PythonBuilder
    from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
    from moulin.tensorrt_engine.plan_file import Machine, check_plan, file_hash

    tensorrt, gpu = _module_and_gpu(device)
    here = Machine(gpu_name(gpu), PythonBuilder(tensorrt).version)
    check_plan(plan, here, file_hash(spec.encoder.file, *spec.encoder.external_files))
    return TensorRtPlan(plan, tensorrt, gpu)


def gpu_name(gpu: torch.device) -> str:
    """The GPU's name with its compute capability, in nvidia-smi's form, by PyTorch's numbering of GPUs."""
    import torch

    properties = torch.cuda.get_device_properties(gpu)
    return f"{properties.name}, {properties.major}.{properties.minor}"


def _module_and_gpu(device: str) -> tuple[Any, torch.device]:
    if device == "cpu":
        raise OptionsError("The engine tensorrt runs on a GPU only", hint="add --device cuda, or leave out --engine")
    tensorrt = tensorrt_module()
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise EngineError(
            "The engine tensorrt uses PyTorch for GPU memory and streams, which is not installed",
            hint=install_hint("gpu,torch", "tensorrt"),
        ) from error
    from moulin.engine.torch.prediction import torch_device

    return tensorrt, torch_device(device)
