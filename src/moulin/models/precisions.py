"""The precision in which an engine runs a model: one table for recordings and streams, commands and Triton's models.

| form       | engine      | on  | runs in (by default the first)              |
|------------|-------------|-----|---------------------------------------------|
| ONNX       | onnxruntime | any | what the chosen files are: fp32, fp16, int8 |
| ONNX       | tensorrt    | GPU | fp16, bf16, fp32                            |
| ONNX       | openvino    | CPU | fp32; bf16, int8 where the CPU has bf16     |
| ONNX       | auto        | CPU | what is fastest of both (`auto_engine`)     |
| checkpoint | torch       | CPU | fp32                                        |
| checkpoint | torch       | GPU | fp16, bf16, fp32; for a CTC head fp32 first |

On a GPU fp16 and bf16 are our GPU engine, fp32 is the plain modules. A checkpoint for an engine that runs ONNX is
exported first, and then is ONNX. ONNX files for torch are the network that they hold, as in a checkpoint.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from moulin.bundle.precision import Precision
from moulin.bundle.spec import CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.engine.device import gpu_index
from moulin.errors import OptionsError
from moulin.models.auto_engine import resolved
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.models.engines import RUNTIMES, choose_engine

_Spec = TypeVar("_Spec", bound=ModelSpec)

_HALF = ("fp16", "bf16")
_GPU_ENGINE: tuple[Precision, ...] = ("fp16", "bf16", "fp32")
_GPU_CTC: tuple[Precision, ...] = ("fp32", "fp16", "bf16")


def check_precision(choice: EngineChoice) -> None:
    """Raises OptionsError where the chosen engine runs no model at all in the chosen precision. Needs no model, which
    may have to be fetched or exported first."""
    engine, precision = choice.named, choice.precision
    if engine is None or precision is None:
        return
    runtime = RUNTIMES[engine]
    if precision not in runtime.precisions:
        others = [name for name, other in RUNTIMES.items() if precision in other.precisions]
        raise OptionsError(
            f"{runtime.said} in {_listed(runtime.precisions)}, not in {precision}",
            hint=f"leave out --precision, or choose --engine {' or '.join(others)}",
        )


def precision_for(spec: ModelSpec, engine: Engine, device: str, precision: Precision | None = None) -> Precision:
    """The precision in which `engine` runs the encoder of `spec` on `device`; `precision` is what was asked for.

    `engine` is one that runs the form of `spec` (`choose_engine`). Raises OptionsError with the reason where it does
    not run in `precision`.
    """
    if isinstance(spec, CheckpointSpec | OnnxModelSpec):
        precision = precision or spec.run_in
    check_precision(EngineChoice(engine, device, precision=precision))
    if engine == "onnxruntime":
        if precision not in (None, spec.precision):
            raise OptionsError(
                f"The files of {spec.name} are in {spec.precision}, and {precision} was asked for",
                hint="name the folder instead of the file: --precision chooses among what is in it",
            )
        return spec.precision
    if engine in ("tensorrt", "openvino"):
        return precision or RUNTIMES[engine].precisions[0]
    possible = checkpoint_precisions(spec, device)
    if precision is None:
        return possible[0]
    if precision not in possible:
        raise _refusal(spec, precision)
    return precision


def checkpoint_precisions(spec: ModelSpec, device: str) -> tuple[Precision, ...]:
    """The precisions in which a checkpoint runs on `device`, the default first."""
    if gpu_index(device) is None:
        return ("fp32",)
    return _GPU_ENGINE if spec.head == "transducer" else _GPU_CTC


def runs_on_gpu_engine(device: str, running_in: Precision) -> bool:
    """Whether our GPU engine, not PyTorch's modules, runs the encoder of a checkpoint in the precision `running_in`.
    The engine refuses what it cannot run."""
    return gpu_index(device) is not None and running_in in _HALF


def settled(spec: _Spec, choice: EngineChoice) -> tuple[_Spec, EngineChoice]:
    """`spec` and `choice` with the engine, device and precision that run `spec`; a checkpoint's spec holds the
    precision too.

    Raises OptionsError as `choose_engine` and `precision_for` do.
    """
    if choice.kind == "auto":
        choice = resolved(spec, choice)
    kind = choose_engine(spec, choice.named)
    device = replace(choice, kind=kind).runs_on
    precision = precision_for(spec, kind, device, choice.precision)
    if kind == "torch" and isinstance(spec, CheckpointSpec | OnnxModelSpec):
        spec = replace(spec, run_in=precision)
    return spec, replace(choice, kind=kind, device=device, precision=precision)


def _refusal(spec: ModelSpec, precision: Precision) -> OptionsError:
    what = "Streams" if spec.streaming else "Recordings"
    return OptionsError(
        f"{what} of a checkpoint run in fp32 on a CPU, not in {precision}: 16-bit arithmetic is for GPUs",
        hint="add --device cuda, or leave out --precision",
    )


def _listed(names: tuple[Precision, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def searches_on_host(spec: ModelSpec, engine: EngineChoice) -> bool:
    """Whether `engine`, with every choice settled, searches `spec` on the host."""
    return (
        engine.kind != "torch"
        or spec.head == "ctc"
        or not runs_on_gpu_engine(engine.device, engine.precision or spec.precision)
    )
