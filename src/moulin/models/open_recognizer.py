"""From a model directory to a recognizer that is ready."""

from __future__ import annotations

from pathlib import Path

from moulin.bundle.files import Precision
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.demo.files import demo_speech
from moulin.engine.features import MAX_AUDIO_SEC, TAIL_PADDING_SEC
from moulin.engine.host_pipeline import HostPipeline
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.recognizer import Recognizer
from moulin.engine.runner import Runner
from moulin.models.engines import (
    Engine,
    check_gpu_engine,
    choose_engine,
    device_of,
    file_precision,
)
from moulin.models.precisions import check_precision, running, runs_on_gpu_engine


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
) -> Recognizer:
    """Load the offline model in `model`, ONNX files or a checkpoint; see `choose_engine`, `OnnxRuntimeRunner` and
    `Recognizer` for the options.

    `plan` is the engine for TensorRT; without one it is taken from the cache or built into it.

    A checkpoint runs on a GPU in fp16 or bf16 by our GPU engine, with or without `cuda_graphs`, in fp32 as its modules
    are: `precision_for`. Raises BundleError, EngineError or OptionsError.
    """
    check_precision(engine, precision)
    spec = load_model(
        model, precision=file_precision(engine, precision), expect="offline", prefer_checkpoint=engine == "torch"
    )
    chosen = choose_engine(spec, engine)
    on = device_of(chosen, device)
    spec = running(spec, chosen, on, precision)
    if isinstance(spec, OnnxModelSpec) and chosen == "tensorrt":
        from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan
        from moulin.tensorrt_engine.runner import TensorRtRunner

        plan = plan or ready_plan(spec, device=on, speech=demo_speech, precision=precision, max_audio_sec=max_audio_sec)
        on_tensorrt = TensorRtRunner(spec, open_plan(spec, plan, device=on), threads=threads)
        host = HostPipeline(spec, on_tensorrt, tail_padding_sec=tail_padding_sec, max_audio_sec=max_audio_sec)
        return Recognizer(spec, host, options=options)
    if isinstance(spec, CheckpointSpec) and runs_on_gpu_engine(spec, device, spec.precision):
        check_gpu_engine(device)
        from moulin.bundle.transducer import load_transducer
        from moulin.engine.gpu.pipeline import GpuEnginePipeline

        on_gpu = GpuEnginePipeline(
            spec,
            load_transducer([spec.checkpoint]),
            device=device,
            tail_padding_sec=tail_padding_sec,
            max_audio_sec=max_audio_sec,
            cuda_graphs=cuda_graphs,
        )
        on_gpu.warm_up()
        return Recognizer(spec, on_gpu, options=options)
    runner = open_runner(spec, engine, device=device, threads=threads, workers=workers)
    host = HostPipeline(spec, runner, tail_padding_sec=tail_padding_sec, max_audio_sec=max_audio_sec)
    return Recognizer(spec, host, options=options)


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
            from moulin.bundle.transducer import load_transducer
            from moulin.engine.torch.runner import TorchRunner

            return TorchRunner(spec, load_transducer([spec.checkpoint]), device=device, threads=threads)
        case "onnxruntime", OnnxModelSpec():
            return OnnxRuntimeRunner(spec, device=device, threads=threads, workers=workers)
        case chosen, _:
            raise TypeError(f"{chosen} does not run a {type(spec).__name__}")
