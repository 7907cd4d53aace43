"""The engine of a model's ONNX files on a GPU, which is built if it does not exist yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from moulin.arrays import Floats
from moulin.bundle.files import Precision
from moulin.bundle.spec import ExportedSpec, ModelSpec
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.errors import EngineError, OptionsError
from moulin.extras import install_hint
from moulin.launch.cache import cache_dir
from moulin.launch.tensorrt_libraries import Library, library_for, library_named

if TYPE_CHECKING:
    import torch

    from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
    from moulin.tensorrt_engine.plan_file import PlanPrecision

Say = Callable[[str], None]

Speech = Callable[[], Sequence[Floats]]
"""A function that returns waveforms for the drift check of a new engine: float32 [n] each, 16 kHz."""


def _silent(_text: str) -> None:
    pass


def check_tensorrt(device: str) -> None:
    """Raise EngineError where TensorRT, PyTorch or the GPU is missing, and OptionsError for a device that is no GPU."""
    _libraries_on(device)


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
    from moulin.tensorrt_engine.build import MAX_BATCH, build_plan, prepare
    from moulin.tensorrt_engine.builders import PythonBuilder
    from moulin.tensorrt_engine.plan_file import capability_of

    wanted = plan_precision(precision)
    here = _libraries_on(device)
    prepared = prepare(spec, precision=wanted, max_batch=max_batch or MAX_BATCH, max_seconds=max_audio_sec)
    assert isinstance(spec, ExportedSpec)
    check = drift_check(spec, wanted, speech, device=device, say=say)
    name = gpu_name(here.gpu)
    builder = PythonBuilder(here.library, here.module, capability=capability_of(name), say=say)
    say(
        f"The engine of {spec.name} for {builder.library} {builder.version} on {name}, {wanted}: "
        "the first time takes minutes"
    )
    return build_plan(spec, prepared, to or engines_folder(spec), builder, name, wanted, check=check)


def engines_folder(spec: ModelSpec) -> Path:
    """The cache folder of a model's engines."""
    return cache_dir() / "engines" / spec.path.name


def drift_check(
    spec: ExportedSpec, precision: PlanPrecision, speech: Speech, *, device: str, say: Say = _silent
) -> Callable[[Path], float]:
    """A function that measures the drift of an engine of `spec` (`measure_drift`).

    Raises EngineError where TensorRT cannot be called from Python here.
    """
    here = _libraries_on(device)

    def check(plan: Path) -> float:
        from moulin.tensorrt_engine.drift import measure_drift
        from moulin.tensorrt_engine.loaded_plan import TensorRtPlan

        drift = measure_drift(spec, TensorRtPlan(plan, here.module, here.gpu), precision, speech())
        say(f"It differs from ONNX Runtime by {drift:.2%} on speech, as {precision} may")
        return drift

    return check


def open_plan(spec: ExportedSpec, plan: Path, *, device: str) -> TensorRtPlan:
    """The engine in the file `plan`. Raises BundleError, and EngineError where it was built for another model, GPU,
    library or version."""
    from moulin.tensorrt_engine.builders import library_version
    from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
    from moulin.tensorrt_engine.plan_file import Machine, check_plan, file_hash

    here = _libraries_on(device, plan)
    machine = Machine(gpu_name(here.gpu), library_version(here.module), here.library.name)
    check_plan(plan, machine, file_hash(spec.encoder.file, *spec.encoder.external_files))
    return TensorRtPlan(plan, here.module, here.gpu)


def gpu_name(gpu: torch.device) -> str:
    """The GPU's name with its compute capability, in nvidia-smi's form, by PyTorch's numbering of GPUs."""
    import torch

    properties = torch.cuda.get_device_properties(gpu)
    return f"{properties.name}, {properties.major}.{properties.minor}"


class _Here(NamedTuple):
    """The library for a GPU, its module, and the GPU."""

    library: Library
    module: Any
    gpu: torch.device


def _libraries_on(device: str, plan: Path | None = None) -> _Here:
    """The library for the GPU `device`: that which built `plan` if it is installed, else the first that serves it."""
    if device == "cpu":
        raise OptionsError("The engine tensorrt runs on a GPU only", hint="add --device cuda, or leave out --engine")
    library_for()  # before PyTorch, which takes seconds to load
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise EngineError(
            "The engine tensorrt uses PyTorch for GPU memory and streams, which is not installed",
            hint=install_hint("gpu,torch", "tensorrt"),
        ) from error
    from moulin.engine.torch.prediction import torch_device
    from moulin.tensorrt_engine.plan_file import built_for, capability_of

    gpu = torch_device(device)
    capability = capability_of(gpu_name(gpu))
    if plan is not None and plan.is_file():
        built_by = library_named(built_for(plan).library)
        if built_by.serves(capability):
            return _Here(built_by, built_by.load(), gpu)
    return _Here(*library_for(capability), gpu)
