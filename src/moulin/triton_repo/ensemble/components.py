"""The parts of the ensemble: their names, and the names and types of their tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from moulin.bundle.onnx_graph import TensorSpec
from moulin.bundle.spec import OnnxModelSpec
from moulin.errors import BundleError
from moulin.triton_repo import contract

Part = Literal["feature_extractor", "encoder", "decoder", "joiner", "scorer"]
PARTS: tuple[Part, ...] = get_args(Part)

Backend = Literal["python", "onnxruntime", "tensorrt"]
"""What runs the encoder: ONNX Runtime in Triton's python backend, or a backend of Triton's own (in NVIDIA's container).
Decoder and joiner have the same, but for `tensorrt`: they are small, and ONNX Runtime runs them on the CPU."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)

MODEL_FILES: dict[Backend, str] = {"python": "model.onnx", "onnxruntime": "model.onnx", "tensorrt": "model.plan"}


def component_name(model_name: str, part: Part) -> str:
    """sherpa's names for the model `transducer`; other models of the repository put their own in front."""
    return part if model_name == contract.MODEL_NAME else f"{model_name}_{part}"


@dataclass(frozen=True)
class Interface:
    """The tensors of encoder, decoder and joiner as the components declare them.

    Those in python are sherpa's and of the types that we use everywhere. A backend of Triton's own takes what the graph
    has, so that neither a name (D2) nor a type (D1) can differ from it.
    """

    x: TensorSpec
    x_lens: TensorSpec
    encoder_out: TensorSpec
    encoder_out_lens: TensorSpec
    y: TensorSpec
    decoder_out: TensorSpec
    joiner_encoder_out: TensorSpec
    joiner_decoder_out: TensorSpec
    logit: TensorSpec


def interface(spec: OnnxModelSpec, backend: Backend) -> Interface:
    """Shapes are without the batch, -1 where they vary. Raises BundleError where `backend` cannot run the model."""
    encoder, decoder, joiner = spec.encoder, spec.decoder, spec.joiner
    if backend != "python" and (len(encoder.inputs) < 2 or len(encoder.outputs) < 2):
        raise BundleError(
            f"Expected {encoder.file} to take and return lengths, which Triton's {backend} backend batches with",
            hint="export it again with lengths, or use the python backend",
        )

    def tensor(found: TensorSpec | None, name: str, dtype: str, *shape: int) -> TensorSpec:
        if backend == "python" or found is None:
            return TensorSpec(name, dtype, shape)
        return TensorSpec(found.name, found.dtype, shape)

    has_lengths = backend != "python"
    return Interface(
        x=tensor(encoder.input("x", 0), "x", "float32", -1, spec.feature_dim),
        x_lens=tensor(encoder.input("x_lens", 1) if has_lengths else None, "x_lens", "int64", 1),
        encoder_out=tensor(encoder.output("encoder_out", 0), "encoder_out", "float32", -1, spec.joiner_dim),
        encoder_out_lens=tensor(
            encoder.output("encoder_out_lens", 1) if has_lengths else None, "encoder_out_lens", "int64", 1
        ),
        y=tensor(decoder.input("y", 0), "y", "int64", spec.context_size),
        decoder_out=tensor(decoder.output("decoder_out", 0), "decoder_out", "float32", spec.joiner_dim),
        joiner_encoder_out=tensor(joiner.input("encoder_out", 0), "encoder_out", "float32", spec.joiner_dim),
        joiner_decoder_out=tensor(joiner.input("decoder_out", 1), "decoder_out", "float32", spec.joiner_dim),
        logit=tensor(joiner.output("logit", 0), "logit", "float32", spec.vocab_size),
    )
