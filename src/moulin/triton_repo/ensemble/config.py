"""config.pbtxt of the ensemble and of its parts, through Triton's own protobuf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from moulin.bundle.onnx_graph import TensorSpec
from moulin.bundle.spec import ExportedSpec, OnnxModelSpec
from moulin.decoding.greedy import WINDOW_FRAMES
from moulin.engine.features import model_max_sec
from moulin.models.engine_choice import EngineChoice
from moulin.onnx_rewrites.packed_states import NEW_STATES, STATES, packed_size
from moulin.triton_repo import contract
from moulin.triton_repo.ensemble.components import (
    MODEL_FILES,
    Backend,
    EncoderInterface,
    Part,
    PredictionInterface,
    blank_interface,
    component_name,
    encoder_interface,
    prediction_interface,
)
from moulin.triton_repo.ensemble.components_spec import spec_parameters
from moulin.triton_repo.model_config import add_contract, add_instances, add_parameters, with_facts
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.service_parameter import add_service
from moulin.triton_repo.streaming_config import streaming_config
from moulin.triton_repo.streaming_options import StreamingOptions

_TYPES = {
    "float16": pb.TYPE_FP16,
    "float32": pb.TYPE_FP32,
    "int32": pb.TYPE_INT32,
    "int64": pb.TYPE_INT64,
}
_STRING = "string"

_MAX_STEP = 16
"""Streams in a step of the encoder, as many as in the layout `fused` on a CPU."""


def ensemble_configs(
    spec: ExportedSpec, options: OfflineOptions, backend: Backend, *, min_frames: int, num_profiles: int = 1
) -> dict[Part | None, Any]:
    """The `inference.ModelConfig` messages of an offline model's parts and, under None, of the ensemble itself. Where a
    CTC head is decoded there is neither decoder nor joiner.

    `min_frames` is the fewest features that the encoder runs with, `num_profiles` how many profiles its TensorRT engine
    has. Raises BundleError where `backend` cannot run the model.
    """
    options = replace(options, engine=_written(options.engine, spec, backend))
    tensors = encoder_interface(spec, backend)
    rows = options.max_batch * max(WINDOW_FRAMES, options.decoding.beam)
    networks, called = _prediction(spec, options.model_name, backend, rows)
    return {
        None: with_facts(
            _ensemble(options, tensors, max_utterance_sec=min(model_max_sec(spec), options.max_audio_sec)),
            spec,
            alternatives=True,
        ),
        "feature_extractor": _feature_extractor(spec, options, backend, tensors, min_frames),
        "encoder": _encoder(spec, options, backend, tensors, num_profiles),
        **networks,
        "scorer": _scorer(spec, options, tensors, called),
    }


def tied_configs(spec: ExportedSpec, options: StreamingOptions, backend: Backend) -> dict[Part | None, Any]:
    """The messages of a streaming model's parts and, under None, of the python model that ties them together.

    The encoder has its states packed. Triton's own ensembles would not do: they run every part once a request, and a
    stream's request may need no step of the encoder or many.
    """
    assert spec.streaming is not None
    options = replace(options, engine=_written(options.engine, spec, backend), instances=1)
    max_batch = options.max_batch or _MAX_STEP
    rows = max_batch * max(WINDOW_FRAMES, options.stream.decoding.beam)
    networks, called = _prediction(spec, options.model_name, backend, rows)
    size = packed_size(spec.streaming)
    found_x, found_out = spec.encoder.input("x", 0), spec.encoder.output(spec.out, 0)
    names = ("x", "encoder_out") if backend == "python" else (found_x.name, found_out.name)
    x, states, encoder_out, new_states = (
        TensorSpec(names[0], found_x.dtype, (spec.streaming.window_frames, spec.feature_dim)),
        TensorSpec(STATES, "float32", (size,)),
        TensorSpec(names[1], found_out.dtype, (-1, spec.frame_channels)),
        TensorSpec(NEW_STATES, "float32", (size,)),
    )
    blank = blank_interface(spec, backend)
    outputs = [encoder_out, *([blank] if blank else []), new_states]
    encoder = _model(component_name(options.model_name, "encoder"), backend, max_batch)
    for tensor in (x, states):
        _input(encoder, tensor)
    for tensor in outputs:
        _output(encoder, tensor)
    add_instances(encoder, 1, options.engine.gpu)
    if backend == "python":
        add_parameters(encoder, {"part": "packed_encoder", "outputs": _names(outputs)})
        add_service(encoder, options)
    # The tying model is on the CPU, whatever the encoder runs on.
    tied = streaming_config(replace(options, engine=replace(options.engine, device="cpu")))
    add_service(tied, options)
    add_parameters(
        tied,
        {
            **spec_parameters(spec),
            "state_size": str(size),
            **_network_parameters(options.model_name, "encoder", [x, states], outputs, max_batch),
            **called,
        },
    )
    return {None: with_facts(tied, spec, alternatives=True), "encoder": encoder, **networks}


def _written(engine: EngineChoice, spec: ExportedSpec, backend: Backend) -> EngineChoice:
    """`engine` as the parts read it: in the precision of the files, or of TensorRT's plan, which lies in its model."""
    return replace(engine, plan=None, precision=engine.precision if backend == "tensorrt" else spec.precision)


def _ensemble(options: OfflineOptions, tensors: EncoderInterface, *, max_utterance_sec: float) -> Any:
    config = pb.ModelConfig(name=options.model_name, platform="ensemble", max_batch_size=options.max_batch)
    add_service(config, options)  # for `moulin serve --repository`
    add_parameters(config, {"max_utterance_sec": f"{max_utterance_sec:g}"})  # for clients, which cut longer recordings
    add_contract(config)
    _step(
        config,
        "feature_extractor",
        {"wav": contract.WAV, "wav_lens": contract.WAV_LENS},
        {"x": "x", "x_lens": "x_lens"},
    )
    blank = {tensors.blank.name: tensors.blank.name} if tensors.blank else {}
    frames = {tensors.encoder_out.name: "encoder_out", tensors.encoder_out_lens.name: "encoder_out_lens", **blank}
    _step(config, "encoder", {tensors.x.name: "x", tensors.x_lens.name: "x_lens"}, frames)
    named_alike = ("encoder_out", "encoder_out_lens", *blank, contract.WAV_LENS, contract.OPTIONS)
    results = (contract.TRANSCRIPTS, contract.RESULT)
    inputs = {name: name for name in named_alike} | {"wav": contract.WAV}
    _step(config, "scorer", inputs, {name: name for name in results})
    return config


def _feature_extractor(
    spec: ExportedSpec, options: OfflineOptions, backend: Backend, tensors: EncoderInterface, min_frames: int
) -> Any:
    """Features are computed on the CPU, whatever runs the encoder: they cross to the GPU once and never come back."""
    config = _part(options, "feature_extractor", "python")
    _input(config, TensorSpec("wav", "float32", (-1,)), ragged=True)
    _input(config, TensorSpec("wav_lens", "int32", (1,)))
    _output(config, TensorSpec("x", tensors.x.dtype, tensors.x.shape))
    _output(config, TensorSpec("x_lens", tensors.x_lens.dtype, (1,)))
    _batching(config, options)
    add_instances(config, 1, None)
    parameters = {
        "feature_dim": str(spec.feature_dim),
        "max_frames": str(spec.max_frames or ""),
        "min_frames": str(min_frames),
        # Triton's own backends batch requests of one length only; the encoder in python sorts and pads by itself.
        "pad_together": str(backend != "python").lower(),
        "x_dtype": tensors.x.dtype,
        "x_lens_dtype": tensors.x_lens.dtype,
    }
    add_parameters(config, parameters)
    return config


def _encoder(
    spec: ExportedSpec, options: OfflineOptions, backend: Backend, tensors: EncoderInterface, num_profiles: int
) -> Any:
    config = _part(options, "encoder", backend)
    native = backend != "python"
    _input(config, tensors.x, ragged=not native)
    _input(config, tensors.x_lens, scalar=native)
    _output(config, tensors.encoder_out)
    _output(config, tensors.encoder_out_lens, scalar=native)
    if tensors.blank:
        _output(config, tensors.blank)
    _batching(config, options)
    add_instances(config, options.instances, options.engine.gpu)
    if backend == "tensorrt":
        # By default Triton uses the first profile only; with all profiles listed it chooses one for each batch.
        config.instance_group[0].profile.extend(map(str, range(num_profiles)))
    if not native:
        add_parameters(
            config, {"channels": str(spec.frame_channels), "out": spec.out, "ctc_output": spec.ctc_output or ""}
        )
    return config


def _prediction(
    spec: ExportedSpec, model_name: str, backend: Backend, max_rows: int
) -> tuple[dict[Part | None, Any], dict[str, str]]:
    """The messages of decoder and joiner, and the parameters by which a search calls them; neither for a CTC head."""
    if not isinstance(spec, OnnxModelSpec):
        return {}, {}
    tensors = prediction_interface(spec, backend)
    called = _prediction_parameters(model_name, tensors, max_rows)
    return _networks(model_name, backend, tensors, max_rows), called


def _networks(model_name: str, backend: Backend, tensors: PredictionInterface, max_rows: int) -> dict[Part | None, Any]:
    """Decoder and joiner. For TensorRT they are too small: ONNX Runtime runs them on the CPU."""
    small: Backend = "onnxruntime" if backend == "tensorrt" else backend
    configs: dict[Part | None, Any] = {}
    parts: dict[Part, tuple[list[TensorSpec], TensorSpec]] = {
        "decoder": ([tensors.y], tensors.decoder_out),
        "joiner": ([tensors.joiner_encoder_out, tensors.joiner_decoder_out], tensors.logit),
    }
    for part, (inputs, output) in parts.items():
        config = configs[part] = _model(component_name(model_name, part), small, max_rows)
        for tensor in inputs:
            _input(config, tensor)
        _output(config, output)
        add_instances(config, 1, None)
        if small == "python":
            add_parameters(config, {"part": part})
    return configs


def _scorer(spec: ExportedSpec, options: OfflineOptions, tensors: EncoderInterface, called: Mapping[str, str]) -> Any:
    """`called` are the parameters by which it calls decoder and joiner."""
    config = _part(options, "scorer", "python")
    _input(config, TensorSpec("encoder_out", tensors.encoder_out.dtype, tensors.encoder_out.shape), ragged=True)
    _input(config, TensorSpec("encoder_out_lens", tensors.encoder_out_lens.dtype, (1,)))
    if tensors.blank:
        _input(config, tensors.blank, ragged=True)
    _input(config, TensorSpec("wav", "float32", (-1,)), ragged=True, optional=True)
    _input(config, TensorSpec(contract.WAV_LENS, "int32", (1,)))
    _input(config, TensorSpec(contract.OPTIONS, _STRING, (1,)), optional=True)
    for name in (contract.TRANSCRIPTS, contract.RESULT):
        _output(config, TensorSpec(name, _STRING, (1,)))
    _batching(config, options)
    add_instances(config, 1, None)
    add_parameters(config, {**spec_parameters(spec), **called})
    return config


def _prediction_parameters(model_name: str, tensors: PredictionInterface, max_rows: int) -> dict[str, str]:
    """`max_rows` is the rows of a call of the search for a full batch; a larger beam takes several calls."""
    joiner_inputs = [tensors.joiner_encoder_out, tensors.joiner_decoder_out]
    return {
        **_network_parameters(model_name, "decoder", [tensors.y], [tensors.decoder_out], max_rows),
        **_network_parameters(model_name, "joiner", joiner_inputs, [tensors.logit], max_rows),
    }


def _network_parameters(
    model_name: str, part: Part, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_rows: int
) -> dict[str, str]:
    """The parameters that `RemoteNetwork.read` reads."""
    return {
        f"{part}_model": component_name(model_name, part),
        f"{part}_inputs": " ".join(f"{tensor.name}:{tensor.dtype}" for tensor in inputs),
        f"{part}_outputs": _names(outputs),
        f"{part}_max_rows": str(max_rows),
    }


def _names(tensors: Sequence[TensorSpec]) -> str:
    return " ".join(tensor.name for tensor in tensors)


def _part(options: OfflineOptions, part: Part, backend: Backend) -> Any:
    config = _model(component_name(options.model_name, part), backend, options.max_batch)
    if backend == "python":
        add_parameters(config, {"part": part})
        add_service(config, options)
    return config


def _model(name: str, backend: Backend, max_batch: int) -> Any:
    config = pb.ModelConfig(name=name, backend=backend, max_batch_size=max_batch)
    if backend != "python":
        config.default_model_filename = MODEL_FILES[backend]
    return config


def _batching(config: Any, options: OfflineOptions) -> None:
    config.dynamic_batching.max_queue_delay_microseconds = round(options.queue_delay_ms * 1000)
    config.dynamic_batching.default_queue_policy.max_queue_size = options.max_queue


def _input(
    config: Any, tensor: TensorSpec, *, ragged: bool = False, scalar: bool = False, optional: bool = False
) -> None:
    added = config.input.add(name=tensor.name, data_type=_type(tensor), dims=tensor.shape)
    if scalar:
        added.reshape.SetInParent()
    added.allow_ragged_batch, added.optional = ragged, optional


def _output(config: Any, tensor: TensorSpec, *, scalar: bool = False) -> None:
    added = config.output.add(name=tensor.name, data_type=_type(tensor), dims=tensor.shape)
    if scalar:  # lengths [N] in the graph, [N, 1] in Triton
        added.reshape.SetInParent()


def _type(tensor: TensorSpec) -> Any:
    return pb.TYPE_STRING if tensor.dtype == _STRING else _TYPES[tensor.dtype]


def _step(config: Any, part: Part, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    step = config.ensemble_scheduling.step.add(model_name=component_name(config.name, part), model_version=-1)
    step.input_map.update(inputs)
    step.output_map.update(outputs)
