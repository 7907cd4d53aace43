"""From a model directory to a streaming recognizer that is ready."""

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
    gpu_engine_knows,
    running_precision,
)
from moulin.engine.host_stream_recognizer import HostStreamRecognizer
from moulin.engine.onnxruntime_stream_runner import MAX_STREAMS, OnnxRuntimeStreamRunner
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.stream_runner import StreamRunner
from moulin.errors import OptionsError
from moulin.streaming.options import StreamOptions


def open_stream_recognizer(
    model: Path,
    *,
    precision: Precision | None = None,
    engine: Engine | None = None,
    device: str = "cpu",
    threads: int | None = None,
    workers: int | None = None,
    max_streams: int = MAX_STREAMS,
    max_batch: int | None = None,
    options: StreamOptions | None = None,
    cuda_graphs: bool = True,
    plan: Path | None = None,
) -> StreamRecognizer:
    """Load the streaming model in `model`, ONNX files or a checkpoint; see `choose_engine`, `OnnxRuntimeStreamRunner`
    and `StreamRecognizer` for the options; `plan` is the engine for TensorRT,
    without one it is taken from the cache or built into it. `cuda_graphs` is for our GPU engine (`GpuStreamRunner`).

    Raises BundleError, EngineError or OptionsError.
    """
    spec = load_model(
        model, precision=file_precision(engine, precision), expect="streaming", prefer_checkpoint=engine == "torch"
    )
    if isinstance(spec, OnnxModelSpec) and choose_engine(spec, engine) == "tensorrt":
        from moulin.engine.open_tensorrt import open_plan, ready_plan
        from moulin.engine.tensorrt_stream_runner import TensorRtStreamRunner

        on = device_of("tensorrt", device)
        opened = open_plan(
            spec, plan or ready_plan(spec, device=on, precision=precision, max_batch=max_batch), device=on
        )
        on_tensorrt = TensorRtStreamRunner(spec, opened, capacity=max_streams, threads=threads, max_batch=max_batch)
        return HostStreamRecognizer(spec, on_tensorrt, options=options)
    if isinstance(spec, CheckpointSpec) and _on_gpu_engine(spec, engine, device):
        from moulin.engine.gpu_stream_recognizer import GpuStreamRecognizer
        from moulin.engine.gpu_stream_runner import GpuStreamRunner

        check_gpu_engine(device)
        in_half = replace(spec, run_in=running_precision(spec, "torch", device))
        on_gpu = GpuStreamRunner(
            in_half,
            device=device,
            threads=threads,
            capacity=max_streams,
            max_batch=max_batch,
            beam=max((options or StreamOptions()).decoding.beam, DecodingOptions().beam),
            cuda_graphs=cuda_graphs,
        )
        return GpuStreamRecognizer(in_half, on_gpu, options=options)
    runner = _runner(spec, engine, device, threads, workers, max_streams, max_batch)
    return HostStreamRecognizer(spec, runner, options=options)


def _on_gpu_engine(spec: CheckpointSpec, engine: Engine | None, device: str) -> bool:
    if choose_engine(spec, engine) != "torch" or gpu_index(device) is None or not gpu_engine_knows(spec):
        return False
    return running_precision(spec, "torch", device) != "fp32"


def _runner(
    spec: ModelSpec,
    engine: Engine | None,
    device: str,
    threads: int | None,
    workers: int | None,
    capacity: int,
    max_batch: int | None,
) -> StreamRunner:
    match choose_engine(spec, engine), spec:
        case "torch", CheckpointSpec():
            running_in = running_precision(spec, "torch", device)
            if running_in != "fp32":
                raise OptionsError(
                    f"Streams of a {spec.family} checkpoint run in fp32 on {device}, not in {running_in}",
                    hint="leave out --precision; in fp16 and bf16 streams of Zipformer2 run, with --device cuda",
                )
            from moulin.engine.torch_stream_runner import TorchStreamRunner

            return TorchStreamRunner(spec, device=device, threads=threads, capacity=capacity, max_batch=max_batch)
        case "onnxruntime", OnnxModelSpec():
            return OnnxRuntimeStreamRunner(
                spec, device=device, threads=threads, workers=workers, capacity=capacity, max_batch=max_batch
            )
        case chosen, _:
            raise TypeError(f"{chosen} does not run a {type(spec).__name__}")
