"""From a model directory to a streaming recognizer that is ready."""

from __future__ import annotations

from pathlib import Path

from moulin.bundle.files import Precision
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.demo.files import demo_speech
from moulin.engine.host_stepper import HostStepper
from moulin.engine.onnxruntime.stream_runner import MAX_STREAMS, OnnxRuntimeStreamRunner
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.stream_runner import StreamRunner
from moulin.models.engines import (
    Engine,
    check_gpu_engine,
    choose_engine,
    device_of,
    file_precision,
)
from moulin.models.precisions import check_precision, running, runs_on_gpu_engine
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
    without one it is taken from the cache or built into it. `cuda_graphs` is for our GPU engine (`GpuStepper`).

    In which `precision` which model runs on what is in `precision_for`: the same for streams as for recordings. Raises
    BundleError, EngineError or OptionsError.
    """
    check_precision(engine, precision)
    spec = load_model(
        model, precision=file_precision(engine, precision), expect="streaming", prefer_checkpoint=engine == "torch"
    )
    chosen = choose_engine(spec, engine)
    on = device_of(chosen, device)
    spec = running(spec, chosen, on, precision)
    if isinstance(spec, OnnxModelSpec) and chosen == "tensorrt":
        from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan
        from moulin.tensorrt_engine.stream_runner import TensorRtStreamRunner

        opened = open_plan(
            spec,
            plan or ready_plan(spec, device=on, speech=demo_speech, precision=precision, max_batch=max_batch),
            device=on,
        )
        on_tensorrt = TensorRtStreamRunner(spec, opened, capacity=max_streams, max_batch=max_batch)
        return StreamRecognizer(spec, HostStepper(spec, on_tensorrt), options=options)
    if isinstance(spec, CheckpointSpec) and runs_on_gpu_engine(spec, device, spec.precision):
        from moulin.bundle.transducer import load_transducer
        from moulin.engine.gpu.stepper import GpuStepper

        check_gpu_engine(device)
        on_gpu = GpuStepper(
            spec,
            load_transducer([spec.checkpoint]),
            device=device,
            threads=threads,
            capacity=max_streams,
            max_batch=max_batch,
            beam=max((options or StreamOptions()).decoding.beam, DecodingOptions().beam),
            cuda_graphs=cuda_graphs,
        )
        return StreamRecognizer(spec, on_gpu, options=options)
    runner = _runner(spec, engine, device, threads, workers, max_streams, max_batch)
    return StreamRecognizer(spec, HostStepper(spec, runner), options=options)


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
            from moulin.bundle.transducer import load_transducer
            from moulin.engine.torch.stream_runner import TorchStreamRunner

            transducer = load_transducer([spec.checkpoint])
            return TorchStreamRunner(
                spec, transducer, device=device, threads=threads, capacity=capacity, max_batch=max_batch
            )
        case "onnxruntime", OnnxModelSpec():
            return OnnxRuntimeStreamRunner(
                spec, device=device, threads=threads, workers=workers, capacity=capacity, max_batch=max_batch
            )
        case chosen, _:
            raise TypeError(f"{chosen} does not run a {type(spec).__name__}")
