"""From the parameters of config.pbtxt to a part that is ready."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from moulin.bundle.files import Precision
from moulin.bundle.onnx_graph import read_onnx_graph
from moulin.bundle.tokens import read_tokens
from moulin.decoding.options import DecodingOptions
from moulin.engine.encoding import BatchedEncoder
from moulin.engine.features import FeatureExtractor
from moulin.engine.onnxruntime_encoder import OnnxRuntimeEncoder
from moulin.engine.onnxruntime_prediction import DECODER, JOINER, OnnxRuntimeNetwork
from moulin.engine.scoring import Scorer
from moulin.triton_repo.ensemble.components import MODEL_FILES
from moulin.triton_repo.ensemble.encoder import EncoderPart
from moulin.triton_repo.ensemble.feature_extractor import FeatureExtractorPart
from moulin.triton_repo.ensemble.network import NetworkPart
from moulin.triton_repo.ensemble.part import Ask, Part
from moulin.triton_repo.ensemble.scorer import RemoteNetwork, RemotePrediction, ScorerPart

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
        case "decoder" | "joiner":
            names = DECODER if part == "decoder" else JOINER
            inputs, output = names
            graph = read_onnx_graph(version / MODEL_FILES["python"])
            return NetworkPart(OnnxRuntimeNetwork(graph, names), inputs, output)
        case "scorer":
            return _scorer(values, version, ask)
    raise ValueError(f"There is no part {part!r}")


def _feature_extractor(values: Values) -> FeatureExtractorPart:
    extractor = FeatureExtractor(
        feature_dim=int(values["feature_dim"]),
        threads=_threads(values),
        max_frames=int(values["max_frames"]) if values["max_frames"] else None,
        max_audio_sec=float(values["max_audio_sec"]),
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
    threads = _threads(values)
    precision: Precision = values["precision"]  # type: ignore[assignment]
    runner = OnnxRuntimeEncoder(
        graph,
        feature_dim=int(graph.input("x", 0).shape[2]),
        precision=precision,
        device=values["device"],
        threads=threads,
        workers=max(1, threads // int(values["instances"])),
    )
    return EncoderPart(BatchedEncoder(runner, joiner_dim=int(values["joiner_dim"])))


def _scorer(values: Values, version: Path, ask: Ask) -> ScorerPart:
    tokens = read_tokens(version / "tokens.txt", int(values["vocab_size"]))

    def network(part: str) -> RemoteNetwork:
        inputs = (tensor.rsplit(":", 1) for tensor in values[f"{part}_inputs"].split(" "))
        return RemoteNetwork(
            ask,
            values[part],
            tuple((name, dtype) for name, dtype in inputs),
            values[f"{part}_output"],
            int(values["max_rows"]),
        )

    prediction = RemotePrediction(
        network("decoder"), network("joiner"), int(values["context_size"]), tokens.skipped_ids
    )
    return ScorerPart(
        Scorer(prediction, tokens, frame_sec=float(values["frame_sec"])), DecodingOptions.from_strings(values)
    )


def _threads(values: Values) -> int:
    return int(values["threads"] or len(os.sched_getaffinity(0)))
