"""The precision in which an engine runs a model: one table for recordings and streams, commands and Triton's models.

| form       | engine      | on  | of                  | runs in (without a wish in the first) |
|------------|-------------|-----|---------------------|---------------------------------------|
| ONNX       | onnxruntime | any | all                 | what the chosen files are: fp32, fp16, int8 |
| ONNX       | tensorrt    | GPU | all                 | fp16, bf16, fp32                      |
| checkpoint | torch       | CPU | all                 | fp32                                  |
| checkpoint | torch       | GPU | recordings          | fp16, bf16, fp32                      |
| checkpoint | torch       | GPU | streams, zipformer2 | fp16, bf16, fp32                      |
| checkpoint | torch       | GPU | streams of others   | fp32                                  |

On a GPU fp16 and bf16 are our GPU engine, fp32 is the plain modules. A checkpoint for onnxruntime or tensorrt is
exported first, and then is ONNX.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from moulin.bundle.files import Precision
from moulin.bundle.spec import CheckpointSpec, ModelSpec
from moulin.engine.device import gpu_index
from moulin.errors import OptionsError
from moulin.gpu.families import STREAM_FAMILIES
from moulin.models.engines import Engine

_Spec = TypeVar("_Spec", bound=ModelSpec)

_OF_ENGINE: dict[Engine, tuple[tuple[Precision, ...], str]] = {
    "onnxruntime": (("fp32", "fp16", "int8"), "ONNX Runtime runs ONNX files"),
    "tensorrt": (("fp16", "bf16", "fp32"), "TensorRT builds its engines"),
    "torch": (("fp32", "fp16", "bf16"), "PyTorch runs checkpoints"),
}
"""What an engine runs at all, and how a sentence begins that says it."""

_HALF = ("fp16", "bf16")
_GPU_ENGINE: tuple[Precision, ...] = ("fp16", "bf16", "fp32")


def check_precision(engine: Engine | None, precision: Precision | None) -> None:
    """Before there is a model, which may have to be fetched or exported: raises OptionsError where `engine` runs no
    model at all in `precision`."""
    if engine is None or precision is None:
        return
    possible, what = _OF_ENGINE[engine]
    if precision not in possible:
        others = [name for name, (runs, _) in _OF_ENGINE.items() if precision in runs]
        raise OptionsError(
            f"{what} in {_listed(possible)}, not in {precision}",
            hint=f"leave out --precision, or choose --engine {' or '.join(others)}",
        )


def precision_for(spec: ModelSpec, engine: Engine, device: str, precision: Precision | None = None) -> Precision:
    """What the encoder of `spec` runs in by `engine` on `device`; `precision` is the wish.

    `engine` is one that takes the form of `spec` (`choose_engine`). Raises OptionsError with the reason where it does
    not run in `precision`.
    """
    if isinstance(spec, CheckpointSpec):
        precision = precision or spec.run_in
    check_precision(engine, precision)
    if engine == "onnxruntime":
        if precision not in (None, spec.precision):
            raise OptionsError(
                f"The files of {spec.name} are in {spec.precision}, and {precision} was asked for",
                hint="name the folder instead of the file: --precision chooses among what is in it",
            )
        return spec.precision
    if engine == "tensorrt":
        return precision or _OF_ENGINE["tensorrt"][0][0]
    possible = checkpoint_precisions(spec, device)
    if precision is None:
        return possible[0]
    if precision not in possible:
        raise _refusal(spec, device, precision)
    return precision


def checkpoint_precisions(spec: ModelSpec, device: str) -> tuple[Precision, ...]:
    """What a checkpoint runs in on `device`, the usual one first."""
    if gpu_index(device) is not None and gpu_engine_knows(spec):
        return _GPU_ENGINE
    return ("fp32",)


def gpu_engine_knows(spec: ModelSpec) -> bool:
    """Whether our GPU engine is for the checkpoint: for all offline ones (it refuses what it cannot run), and for
    streaming ones of the families that it has."""
    return spec.streaming is None or spec.family in STREAM_FAMILIES


def runs_on_gpu_engine(spec: ModelSpec, device: str, running_in: Precision) -> bool:
    """Whether a checkpoint that runs in `running_in` does so by our GPU engine, not by its plain modules."""
    return gpu_index(device) is not None and running_in in _HALF and gpu_engine_knows(spec)


def running(spec: _Spec, engine: Engine, device: str, precision: Precision | None = None) -> _Spec:
    """`spec`, whose `precision` says what runs where it is a checkpoint's. Raises as `precision_for` does."""
    running_in = precision_for(spec, engine, device, precision)
    if isinstance(spec, CheckpointSpec):
        return replace(spec, run_in=running_in)
    return spec


def _refusal(spec: ModelSpec, device: str, precision: Precision) -> OptionsError:
    what = "Streams" if spec.streaming else "Recordings"
    if gpu_index(device) is None:
        hint = "leave out --precision; or export it for ONNX Runtime with --engine onnxruntime"
        if gpu_engine_knows(spec):
            hint = "add --device cuda, or leave out --precision"
        return OptionsError(
            f"{what} of a checkpoint run in fp32 on a CPU, not in {precision}: 16-bit arithmetic is for GPUs",
            hint=hint,
        )
    return OptionsError(
        f"{what} of a {spec.family} checkpoint run in fp32 on {device}, not in {precision}: "
        "our GPU engine streams Zipformer2 alone",
        hint="leave out --precision; ONNX files of it run in fp16, with --engine onnxruntime or tensorrt",
    )


def _listed(names: tuple[Precision, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
