"""The parameters of decoders and joiners. Exports have the joiner's two projections in the encoder and the decoder."""

from __future__ import annotations

from collections.abc import Mapping

from moulin.bundle.onnx_weights.integers import Integers
from moulin.bundle.onnx_weights.matching import Match
from moulin.bundle.onnx_weights.model_file import Array, WeightFile
from moulin.bundle.onnx_weights.operation import NOTHING
from moulin.bundle.onnx_weights.skeleton import Skeleton


def decoder_weights(file: WeightFile) -> Mapping[str, Array | Integers]:
    """`decoder.*`, and the joiner's `decoder_proj`."""
    match = Match(Skeleton(file, embeddings=True))
    embedding = match.find("decoder.embedding.weight", NOTHING, "embedding")
    match.take("decoder.embedding.weight", match.weight(embedding))
    flow = embedding.alone
    if match.candidates(flow, "conv"):
        conv = match.find("decoder.conv.weight", flow, "conv")
        match.layer("decoder.conv", conv, bias=False)
        flow = conv.alone
    match.layer("joiner.decoder_proj", match.find("joiner.decoder_proj", flow, "linear"))
    return match.finish()


def has_relu(file: WeightFile) -> bool:
    """Whether a decoder's output goes through a ReLU before the projection."""
    return any(node.op_type == "Relu" for node in file.model.graph.node)


def joiner_weights(file: WeightFile) -> Mapping[str, Array | Integers]:
    """The joiner's `output_linear`."""
    match = Match(Skeleton(file))
    match.layer("joiner.output_linear", match.find("joiner.output_linear", NOTHING, "linear"))
    return match.finish()
