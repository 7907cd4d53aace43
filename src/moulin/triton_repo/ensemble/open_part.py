"""Opening of a part with the parameters of config.pbtxt."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from moulin.bundle.onnx_graph import read_onnx_graph
from moulin.decoding.ctc import search_ctc
from moulin.decoding.search import search
from moulin.engine.encoding import BatchedEncoder
from moulin.engine.features import FeatureExtractor
from moulin.engine.host_stepper import CtcStepper, HostStepper
from moulin.engine.onnxruntime.encoder import OnnxRuntimeEncoder
from moulin.engine.onnxruntime.prediction import DECODER, JOINER, OnnxRuntimeNetwork
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.triton_repo.ensemble.components import MODEL_FILES
from moulin.triton_repo.ensemble.components_spec import ComponentsSpec
from moulin.triton_repo.ensemble.encoder import EncoderPart
from moulin.triton_repo.ensemble.feature_extractor import FeatureExtractorPart
from moulin.triton_repo.ensemble.network import NetworkPart
from moulin.triton_repo.ensemble.packed_encoder import PackedEncoderPart
from moulin.triton_repo.ensemble.part import Ask, Part
from moulin.triton_repo.ensemble.remote_networks import RemoteNetwork, RemotePrediction
from moulin.triton_repo.ensemble.remote_stream_runner import RemoteStreamEncoder, RemoteStreamRunner
from moulin.triton_repo.ensemble.scorer import ScorerPart
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.service_options import ServiceOptions
from moulin.triton_repo.service_parameter import read_service
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions

Values = Mapping[str, str]


def open_part(part: str, values: Values, version: Path, ask: Ask) -> Part:
    """`part` with the parameters `values` and the files in the folder `version`; `ask` is for the scorer.

    Raises BundleError and EngineError.
    """
    match part:
        case "feature_extractor":
            return _feature_extractor(values)
        case "encoder":
            return _encoder(values, version)
        case "packed_encoder":
            return _packed_encoder(values, version)
        case "decoder" | "joiner":
            names = DECODER if part == "decoder" else JOINER
            inputs, output = names
            graph = read_onnx_graph(version / MODEL_FILES["python"])
            return NetworkPart(OnnxRuntimeNetwork(graph, names), inputs, output)
        case "scorer":
            return _scorer(values, version, ask)
    raise ValueError(f"There is no part {part!r}")


def _feature_extractor(values: Values) -> FeatureExtractorPart:
    options = read_service(OfflineOptions, values, "the part feature_extractor")
    extractor = FeatureExtractor(
        feature_dim=int(values["feature_dim"]),
        threads=_threads(options),
        max_frames=int(values["max_frames"]) if values["max_frames"] else None,
        max_audio_sec=options.max_audio_sec,
    )
    return FeatureExtractorPart(
        extractor,
        min_frames=int(values["min_frames"]),
        pad_together=values["pad_together"] == "true",
        x_dtype=values["x_dtype"],
        x_lens_dtype=values["x_lens_dtype"],
    )


def _encoder(values: Values, version: Path) -> EncoderPart:
    graph = read_onnx_graph(version / MODEL_FILES["python"])
    options = read_service(OfflineOptions, values, "the part encoder")
    threads = _threads(options)
    runner = OnnxRuntimeEncoder(
        graph,
        feature_dim=int(graph.input("x", 0).shape[2]),
        precision=options.engine.precision or "fp32",
        device=options.engine.device,
        threads=threads,
        workers=max(1, threads // options.instances),
        ctc_output=values["ctc_output"] or None,
        out=values["out"],
    )
    channels = int(values["channels"])
    return EncoderPart(BatchedEncoder(runner, channels=channels + bool(values["ctc_output"])), channels)


def _scorer(values: Values, version: Path, ask: Ask) -> ScorerPart:
    spec = ComponentsSpec.read(values, version / "tokens.txt")
    options = read_service(OfflineOptions, values, "the part scorer")
    searching = (
        partial(search_ctc, skipped_ids=spec.tokens.skipped_ids)
        if spec.head == "ctc"
        else partial(search, _prediction(values, spec, ask), joiner_dim=spec.joiner_dim)
    )
    return ScorerPart(spec, searching, options.decoding)


def open_tied_streams(parameters: ShimParameters[StreamingOptions], ask: Ask, *, capacity: int) -> StreamRecognizer:
    """The streaming recognizer whose networks are other models, called by `ask`. Raises BundleError."""
    values = parameters.values
    spec = ComponentsSpec.read(values, parameters.version / "tokens.txt")
    encoder = RemoteStreamEncoder(
        RemoteNetwork.read("encoder", values, ask),
        state_size=int(values["state_size"]),
        feature_dim=spec.feature_dim,
        capacity=capacity,
    )
    stepper = (
        CtcStepper(spec, encoder)
        if spec.head == "ctc"
        else HostStepper(spec, RemoteStreamRunner(encoder, _prediction(values, spec, ask)))
    )
    return StreamRecognizer(spec, stepper, options=parameters.options.stream, fast_beam_search=True)


def _prediction(values: Values, spec: ComponentsSpec, ask: Ask) -> RemotePrediction:
    return RemotePrediction(
        RemoteNetwork.read("decoder", values, ask),
        RemoteNetwork.read("joiner", values, ask),
        spec.context_size,
        spec.tokens.skipped_ids,
    )


def _packed_encoder(values: Values, version: Path) -> PackedEncoderPart:
    options = read_service(StreamingOptions, values, "the part packed_encoder")
    return PackedEncoderPart(
        read_onnx_graph(version / MODEL_FILES["python"]),
        values["outputs"].split(" "),
        precision=options.engine.precision or "fp32",
        device=options.engine.device,
        threads=_threads(options),
    )


def _threads(options: ServiceOptions) -> int:
    return options.engine.threads or len(os.sched_getaffinity(0))
