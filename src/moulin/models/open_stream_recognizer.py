"""Opening of a model directory as a streaming recognizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from moulin.bundle.spec import CheckpointSpec, CtcModelSpec, ExportedSpec, ModelSpec, OnnxModelSpec
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.decoding.rescoring import Rescoring
from moulin.demo.files import demo_speech
from moulin.engine.blank_skip import check_blank_skip
from moulin.engine.host_stepper import CtcStepper, HostStepper
from moulin.engine.limits import MAX_STREAMS
from moulin.engine.lm_scales import check_scales
from moulin.engine.nbest import check_nbest
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamEncoder, OnnxRuntimeStreamRunner
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.stream_runner import StreamEncoder, StreamRunner
from moulin.models.engine_choice import USUAL_ENGINE, EngineChoice
from moulin.models.engines import check_gpu_engine
from moulin.models.host_search import check_rnn_lm, needs_host_search
from moulin.models.hotwords import hotword_graphs
from moulin.models.language_model import open_fusion
from moulin.models.language_model_files import NO_FILES, LanguageModelFiles, with_scales
from moulin.models.load_for_engine import load_for_engine
from moulin.models.precisions import runs_on_gpu_engine, searches_on_host
from moulin.streaming.options import StreamOptions

if TYPE_CHECKING:
    from moulin.engine.torch.stream_runner import TorchStreamRunner
    from moulin.tensorrt_engine.loaded_plan import TensorRtPlan


def open_stream_recognizer(
    model: Path,
    engine: EngineChoice = USUAL_ENGINE,
    *,
    max_streams: int = MAX_STREAMS,
    max_batch: int | None = None,
    options: StreamOptions | None = None,
    hotwords: Sequence[Hotword] = (),
    lm: LanguageModelFiles = NO_FILES,
) -> StreamRecognizer:
    """Load the streaming model in `model`, ONNX files or a checkpoint, for `engine`; see `OnnxRuntimeStreamRunner` and
    `StreamRecognizer` for the options. `hotwords` are those of every stream beside its own, `lm` the language model.

    `models.precisions` has the precision for a model and a device. Raises BundleError, EngineError or OptionsError.
    """
    options = options or StreamOptions()
    decoding = with_scales(options.decoding, lm)
    options = replace(options, decoding=decoding)
    host_search = needs_host_search(decoding, lm)
    spec, engine = load_for_engine(model, engine, "streaming", host_search=host_search)
    check_blank_skip(spec, decoding)
    check_rnn_lm(spec, engine, lm)
    check_nbest(decoding)
    graphs = hotword_graphs(spec, hotwords, decoding)
    fusion = open_fusion(spec, lm)
    assert not isinstance(fusion, Rescoring)
    check_scales(decoding, fusion)
    if not searches_on_host(spec, engine):
        check_gpu_engine(engine.device)
        from moulin.engine.gpu.stepper import GpuStepper
        from moulin.models.shared_model import shared_transducer

        on_gpu = GpuStepper(
            spec,
            shared_transducer(spec),
            device=engine.device,
            threads=engine.threads,
            capacity=max_streams,
            max_batch=max_batch,
            beam=max(decoding.beam, decoding.nbest, DecodingOptions().beam),
            cuda_graphs=engine.cuda_graphs,
            hotwords=None if graphs is None else graphs.server,
            fusion=fusion,
        )
        return StreamRecognizer(spec, on_gpu, options=options, hotwords=graphs, fusion=fusion)
    stepper = (
        CtcStepper(spec, _ctc_runner(spec, engine, max_streams, max_batch))
        if spec.head == "ctc"
        else HostStepper(spec, _runner(spec, engine, max_streams, max_batch), fusion)
    )
    return StreamRecognizer(
        spec,
        stepper,
        options=options,
        hotwords=graphs,
        fast_beam_search=True,
        fusion=fusion,
    )


def _torch_runner(spec: ModelSpec, engine: EngineChoice, capacity: int, max_batch: int | None) -> TorchStreamRunner:
    from moulin.engine.torch.stream_runner import TorchStreamRunner
    from moulin.models.shared_model import shared_model

    on = engine.device
    model = shared_model(spec, on)
    return TorchStreamRunner(spec, model, device=on, threads=engine.threads, capacity=capacity, max_batch=max_batch)


def _plan(spec: ExportedSpec, engine: EngineChoice, max_batch: int | None) -> TensorRtPlan:
    from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan

    on = engine.device
    plan = engine.plan or ready_plan(
        spec, device=on, speech=demo_speech, precision=engine.precision, max_batch=max_batch
    )
    return open_plan(spec, plan, device=on)


def _ctc_runner(spec: ModelSpec, engine: EngineChoice, capacity: int, max_batch: int | None) -> StreamEncoder:
    match engine.kind, spec:
        case "torch", CheckpointSpec() if runs_on_gpu_engine(engine.device, spec.precision):
            check_gpu_engine(engine.device)
            from moulin.engine.gpu.ctc import GpuCtcStreamEncoder
            from moulin.models.shared_model import shared_ctc_model

            model, on = shared_ctc_model(spec), engine.device
            return GpuCtcStreamEncoder(spec, model, capacity=capacity, max_batch=max_batch, device=on)
        case "torch", CheckpointSpec():
            return _torch_runner(spec, engine, capacity, max_batch)
        case "onnxruntime", CtcModelSpec():
            return OnnxRuntimeStreamEncoder(spec, capacity=capacity, max_batch=max_batch, **engine.for_exported)
        case "tensorrt", CtcModelSpec():
            from moulin.tensorrt_engine.stream_runner import TensorRtStreamEncoder

            plan = _plan(spec, engine, max_batch)
            return TensorRtStreamEncoder(spec, plan, capacity=capacity, max_batch=max_batch)
        case "openvino", CtcModelSpec():
            from moulin.engine.openvino.stream_runner import OpenVinoStreamEncoder

            return OpenVinoStreamEncoder(spec, capacity=capacity, max_batch=max_batch, **engine.for_exported)
        case chosen, _:
            raise TypeError(f"{chosen} does not run a {type(spec).__name__}")


def _runner(spec: ModelSpec, engine: EngineChoice, capacity: int, max_batch: int | None) -> StreamRunner:
    match engine.kind, spec:
        case "torch", CheckpointSpec() | OnnxModelSpec():
            return _torch_runner(spec, engine, capacity, max_batch)
        case "onnxruntime", OnnxModelSpec():
            return OnnxRuntimeStreamRunner(spec, capacity=capacity, max_batch=max_batch, **engine.for_exported)
        case "tensorrt", OnnxModelSpec():
            from moulin.tensorrt_engine.stream_runner import TensorRtStreamRunner

            plan = _plan(spec, engine, max_batch)
            return TensorRtStreamRunner(spec, plan, capacity=capacity, max_batch=max_batch)
        case "openvino", OnnxModelSpec():
            from moulin.engine.openvino.stream_runner import OpenVinoStreamRunner

            return OpenVinoStreamRunner(spec, capacity=capacity, max_batch=max_batch, **engine.for_exported)
        case chosen, _:
            raise TypeError(f"{chosen} does not run a {type(spec).__name__}")
