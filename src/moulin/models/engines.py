"""Which engine runs a model, and whether it can on a device. What an engine is, is in `open_recognizer` and
`open_stream_recognizer`."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

from moulin.bundle.files import Precision
from moulin.bundle.spec import CheckpointSpec, ModelSpec
from moulin.engine.device import gpu_index
from moulin.errors import EngineError, OptionsError

Engine = Literal["onnxruntime", "torch", "tensorrt"]
ENGINES: tuple[Engine, ...] = get_args(Engine)


def choose_engine(spec: ModelSpec, wanted: Engine | None = None) -> Engine:
    """`wanted`, or without a wish the one for the form that the model has on disk: `torch` for a checkpoint,
    `onnxruntime` for ONNX files.

    Raises OptionsError where the engine does not take that form.
    """
    checkpoint = isinstance(spec, CheckpointSpec)
    usual: Engine = "torch" if checkpoint else "onnxruntime"
    if wanted is None or wanted == usual:
        return usual
    if wanted == "tensorrt" and not checkpoint:
        return wanted
    if wanted in ("onnxruntime", "tensorrt"):
        raise OptionsError(
            f"The engine {wanted} runs ONNX files, and {spec.file} is a checkpoint",
            hint="`moulin export` writes ONNX files of it; or leave out --engine",
        )
    if wanted == "torch":
        raise OptionsError(
            f"The engine torch runs checkpoints, and {spec.path} holds ONNX files",
            hint="name the checkpoint that they were exported from (epoch-N.pt, pretrained.pt); or leave out --engine",
        )
    raise OptionsError(f"Expected an engine of {', '.join(ENGINES)}, got {wanted!r}")


def check_gpu_engine(device: str) -> None:
    """Raises OptionsError or EngineError where our GPU engine cannot run on `device`."""
    from moulin.engine.torch.prediction import torch_device

    torch_device(device)
    if importlib.util.find_spec("triton") is None:
        raise EngineError(
            "The GPU engine needs Triton-lang, which is not installed",
            hint="install PyTorch for CUDA, which brings it; --precision fp32 runs a checkpoint without",
        )


def device_of(engine: Engine | None, device: str) -> str:
    """Where `engine` runs if `device` is what was asked for. TensorRT has no CPUs: there cpu, the default of the
    command line, means the first GPU."""
    return "cuda" if engine == "tensorrt" and device == "cpu" else device


def file_precision(engine: Engine | None, precision: Precision | None) -> Precision | None:
    """Which files to take if `precision` was asked for: engines of TensorRT are built from fp32 ones, and are what
    `precision` is about."""
    return "fp32" if engine == "tensorrt" else precision


def check_engine(spec: ModelSpec, engine: Engine | None, device: str) -> Engine:
    """`choose_engine`, and whether it works on `device`, before anything is started.

    Raises OptionsError or EngineError where `device` is no device, or the engine cannot use it.
    """
    gpu_index(device)
    chosen = choose_engine(spec, engine)
    if chosen == "torch":
        from moulin.engine.torch.prediction import torch_device

        torch_device(device)
    elif chosen == "tensorrt":
        from moulin.tensorrt_engine.ready_plan import check_tensorrt

        check_tensorrt(device_of(chosen, device))
    else:
        from moulin.engine.onnxruntime.session import check_provider

        check_provider(device)
    return chosen
