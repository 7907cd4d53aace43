"""Opening of a model directory as an offline recognizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moulin.bundle.spec import CheckpointSpec, CtcModelSpec, ExportedSpec, ModelSpec, OnnxModelSpec
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.decoding.rescoring import Rescoring
from moulin.demo.files import demo_speech
from moulin.engine.blank_skip import check_blank_skip
from moulin.engine.features import TAIL_PADDING_SEC
from moulin.engine.host_pipeline import CtcPipeline, HostPipeline
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.engine.lm_scales import check_scales
from moulin.engine.nbest import check_nbest
from moulin.engine.onnxruntime.encoder import OnnxRuntimeEncoder
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.recognizer import Recognizer
from moulin.engine.runner import CtcRunner, Runner
from moulin.models.engine_choice import USUAL_ENGINE, EngineChoice
from moulin.models.engines import check_gpu_engine
from moulin.models.host_search import check_rnn_lm, needs_host_search
from moulin.models.hotwords import hotword_graphs
from moulin.models.language_model import open_fusion
from moulin.models.language_model_files import NO_FILES, LanguageModelFiles, with_scales
from moulin.models.load_for_engine import load_for_engine
from moulin.models.precisions import runs_on_gpu_engine, searches_on_host

if TYPE_CHECKING:
    from moulin.engine.torch.runner import TorchRunner
    from moulin.tensorrt_engine.loaded_plan import TensorRtPlan


def open_recognizer(
    model: Path,
    engine: EngineChoice = USUAL_ENGINE,
    *,
    options: DecodingOptions | None = None,
    hotwords: Sequence[Hotword] = (),
    lm: LanguageModelFiles = NO_FILES,
    tail_padding_sec: float = TAIL_PADDING_SEC,
    max_audio_sec: float = MAX_AUDIO_SEC,
) -> Recognizer:
    """Load the offline model in `model`, ONNX files or a checkpoint, for `engine`.

    `options` are the defaults of `Recognizer.transcribe`, `hotwords` those of every utterance beside its own, and `lm`
    the language model; `tail_padding_sec` of silence is appended to each utterance.

    On a GPU a checkpoint runs in fp16 or bf16 by our GPU engine, in fp32 by its modules: see `models.precisions`.
    Raises BundleError, EngineError or OptionsError.
    """
    options = with_scales(options or DecodingOptions(), lm)
    host_search = needs_host_search(options, lm)
    spec, engine = load_for_engine(model, engine, "offline", host_search=host_search)
    check_blank_skip(spec, options)
    check_rnn_lm(spec, engine, lm)
    check_nbest(options)
    graphs = hotword_graphs(spec, hotwords, options)
    fusion = open_fusion(spec, lm)
    check_scales(options, fusion)
    if not searches_on_host(spec, engine):
        check_gpu_engine(engine.device)
        assert not isinstance(fusion, Rescoring)
        from moulin.engine.gpu.pipeline import GpuEnginePipeline
        from moulin.models.shared_model import shared_transducer

        on_gpu = GpuEnginePipeline(
            spec,
            shared_transducer(spec),
            device=engine.device,
            tail_padding_sec=tail_padding_sec,
            max_audio_sec=max_audio_sec,
            cuda_graphs=engine.cuda_graphs,
            hotwords=None if graphs is None else graphs.server,
            fusion=fusion,
        )
        on_gpu.warm_up()
        return Recognizer(spec, on_gpu, options=options, hotwords=graphs, fusion=fusion)
    on_host = (
        CtcPipeline(
            spec,
            _ctc_runner(spec, engine, tail_padding_sec=tail_padding_sec, max_audio_sec=max_audio_sec),
            tail_padding_sec=tail_padding_sec,
            max_audio_sec=max_audio_sec,
        )
        if spec.head == "ctc"
        else HostPipeline(
            spec,
            _runner(spec, engine, max_audio_sec),
            fusion=fusion,
            tail_padding_sec=tail_padding_sec,
            max_audio_sec=max_audio_sec,
        )
    )
    return Recognizer(
        spec,
        on_host,
        options=options,
        hotwords=graphs,
        fast_beam_search=True,
        fusion=fusion,
    )


def _torch_runner(spec: ModelSpec, engine: EngineChoice) -> TorchRunner:
    from moulin.engine.torch.runner import TorchRunner
    from moulin.models.shared_model import shared_model

    model = shared_model(spec, engine.device)
    return TorchRunner(spec, model, device=engine.device, threads=engine.threads)


def _plan(spec: ExportedSpec, engine: EngineChoice, max_audio_sec: float) -> TensorRtPlan:
    from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan

    on = engine.device
    plan = engine.plan or ready_plan(
        spec, device=on, speech=demo_speech, precision=engine.precision, max_audio_sec=max_audio_sec
    )
    return open_plan(spec, plan, device=on)


def _ctc_runner(spec: ModelSpec, engine: EngineChoice, *, tail_padding_sec: float, max_audio_sec: float) -> CtcRunner:
    match engine.kind, spec:
        case "torch", CheckpointSpec() if runs_on_gpu_engine(engine.device, spec.precision):
            check_gpu_engine(engine.device)
            from moulin.engine.gpu.ctc import GpuCtcEncoder
            from moulin.engine.gpu.kernels import most_frames
            from moulin.models.shared_model import shared_ctc_model

            longest = most_frames(max_audio_sec, tail_padding_sec)
            model = shared_ctc_model(spec)
            return GpuCtcEncoder(spec, model, max_frames=longest, device=engine.device, threads=engine.threads)
        case "torch", CheckpointSpec():
            return _torch_runner(spec, engine)
        case "onnxruntime", CtcModelSpec():
            return OnnxRuntimeEncoder(
                spec.encoder,
                feature_dim=spec.feature_dim,
                precision=spec.precision,
                out=spec.out,
                **engine.for_exported,
            )
        case "tensorrt", CtcModelSpec():
            from moulin.tensorrt_engine.runner import TensorRtEncoder

            return TensorRtEncoder(spec, _plan(spec, engine, max_audio_sec), threads=engine.threads)
        case "openvino", CtcModelSpec():
            from moulin.engine.openvino.encoder import OpenVinoEncoder

            return OpenVinoEncoder(
                spec.encoder,
                feature_dim=spec.feature_dim,
                max_frames=spec.max_frames,
                out=spec.out,
                **engine.for_exported,
            )
        case chosen, _:
            raise TypeError(f"{chosen} does not run a {type(spec).__name__}")


def _runner(spec: ModelSpec, engine: EngineChoice, max_audio_sec: float) -> Runner:
    match engine.kind, spec:
        case "torch", CheckpointSpec() | OnnxModelSpec():
            return _torch_runner(spec, engine)
        case "onnxruntime", OnnxModelSpec():
            return OnnxRuntimeRunner(spec, **engine.for_exported)
        case "tensorrt", OnnxModelSpec():
            from moulin.tensorrt_engine.runner import TensorRtRunner

            return TensorRtRunner(spec, _plan(spec, engine, max_audio_sec), threads=engine.threads)
        case "openvino", OnnxModelSpec():
            from moulin.engine.openvino.runner import OpenVinoRunner

            return OpenVinoRunner(spec, **engine.for_exported)
        case chosen, _:
            raise TypeError(f"{chosen} does not run a {type(spec).__name__}")
