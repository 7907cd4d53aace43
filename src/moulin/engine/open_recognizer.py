"""From a model directory to a recognizer that is ready."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moulin.bundle.files import Precision
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.engine.device import gpu_index
from moulin.engine.engines import (
    Engine,
    check_gpu_engine,
    choose_engine,
    device_of,
    file_precision,
    running_precision,
)
from moulin.engine.features import MAX_AUDIO_SEC, TAIL_PADDING_SEC
from moulin.engine.offline_recognizer import OfflineRecognizer
from moulin.engine.onnxruntime_runner import OnnxRuntimeRunner
from moulin.engine.recognizer import Recognizer
from moulin.engine.runner import Runner
from moulin.errors import OptionsError


def open_recognizer(
    model: Path,
    *,
    precision: Precision | None = None,
    engine: Engine | None = None,
    device: str = "cpu",
    threads: int | None = None,
    workers: int | None = None,
    options: DecodingOptions | None = None,
    tail_padding_sec: float = TAIL_PADDING_SEC,
    max_audio_sec: float = MAX_AUDIO_SEC,
    cuda_graphs: bool = True,
    plan: Path | None = None,
) -> OfflineRecognizer:
    """Load the offline model in `model`, ONNX files or a checkpoint; see `choose_engine`, `OnnxRuntimeRunner` and
    `Recognizer` for the options.

    `plan` is the engine for TensorRT; without one it is taken from the cache or built into it.

    A checkpoint runs on a GPU in fp16 or bf16 by our GPU engine (`GpuRecognizer`, with or without `cuda_graphs`), in
    fp32 as its modules are. Raises BundleError, EngineError or OptionsError.
    """
    spec = load_model(
        model, precision=file_precision(engine, precision), expect="offline", prefer_checkpoint=engine == "torch"
    )
    if isinstance(spec, OnnxModelSpec) and choose_engine(spec, engine) == "tensorrt":
        from moulin.engine.open_tensorrt import open_plan, ready_plan
        from moulin.engine.tensorrt_runner import TensorRtRunner

        on = device_of("tensorrt", device)
        plan = plan or ready_plan(spec, device=on, precision=precision, max_audio_sec=max_audio_sec)
        return Recognizer(
            spec,
            TensorRtRunner(spec, open_plan(spec, plan, device=on), threads=threads),
            options=options,
            tail_padding_sec=tail_padding_sec,
            max_audio_sec=max_audio_sec,
        )
    if isinstance(spec, CheckpointSpec) and choose_engine(spec, engine) == "torch":
        on_gpu = gpu_index(device) is not None
        if on_gpu and precision != "fp32":
            check_gpu_engine(device)
            from moulin.engine.gpu_recognizer import GpuRecognizer

            recognizer = GpuRecognizer(
                replace(spec, run_in=running_precision(spec, "torch", device)),
                device=device,
                options=options,
                tail_padding_sec=tail_padding_sec,
                max_audio_sec=max_audio_sec,
                cuda_graphs=cuda_graphs,
            )
            recognizer.warm_up()
            return recognizer
        if not on_gpu and precision not in (None, "fp32"):
            raise OptionsError(f"A checkpoint runs in {precision} on a GPU only", hint="add --device cuda")
    return Recognizer(
        spec,
        open_runner(spec, engine, device=device, threads=threads, workers=workers),
        options=options,
        tail_padding_sec=tail_padding_sec,
        max_audio_sec=max_audio_sec,
    )


def open_runner(
    spec: ModelSpec,
    engine: Engine | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    workers: int | None = None,
) -> Runner:
    """What runs the networks of the offline model `spec`. Raises as `open_recognizer` does."""
    match choose_engine(spec, engine), spec:
        case "torch", CheckpointSpec():
            from moulin.engine.torch_runner import TorchRunner

            return TorchRunner(spec, device=device, threads=threads)
        case "onnxruntime", OnnxModelSpec():
            return OnnxRuntimeRunner(spec, device=device, threads=threads, workers=workers)
        case chosen, _:
            raise TypeError(f"{chosen} does not run a {type(spec).__name__}")
