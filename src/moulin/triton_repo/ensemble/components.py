"""The parts of the ensemble: their names, and the names and types of their tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from moulin.bundle.onnx_graph import TensorSpec
from moulin.bundle.spec import ExportedSpec, OnnxModelSpec
from moulin.errors import BundleError
from moulin.onnx_rewrites.ctc_head import BLANK_OUTPUT
from moulin.triton_repo import contract

Part = Literal["feature_extractor", "encoder", "decoder", "joiner", "scorer"]
PARTS: tuple[Part, ...] = get_args(Part)

Backend = Literal["python", "onnxruntime", "tensorrt"]
"""The encoder's backend: ONNX Runtime in Triton's python backend, or one of Triton's own (in NVIDIA's container).
Decoder and joiner have the same, but for `tensorrt`: they are small, and ONNX Runtime runs them on the CPU."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)

MODEL_FILES: dict[Backend, str] = {"python": "model.onnx", "onnxruntime": "model.onnx", "tensorrt": "model.plan"}


def component_name(model_name: str, part: Part) -> str:
    """The Triton model of a part: sherpa's name for the model `transducer`; other models have their name in front."""
    return part if model_name == contract.MODEL_NAME else f"{model_name}_{part}"


@dataclass(frozen=True)
class PredictionInterface:
    """The tensors of decoder and joiner as the components declare them.

    Components in python have sherpa's names and the types that moulin uses everywhere. Those of Triton's own backends
    have the graph's, so that neither a name nor a type can differ from it. Shapes are without the batch, -1 where they
    vary.
    """

    y: TensorSpec
    decoder_out: TensorSpec
    joiner_encoder_out: TensorSpec
    joiner_decoder_out: TensorSpec
    logit: TensorSpec


@dataclass(frozen=True)
class EncoderInterface:
    """The tensors of an offline encoder as the components declare them; see `PredictionInterface`."""

    x: TensorSpec
    x_lens: TensorSpec
    encoder_out: TensorSpec
    """Frames for the joiner, or where a CTC head is decoded its log-probabilities."""
    encoder_out_lens: TensorSpec
    blank: TensorSpec | None
    """BLANK_OUTPUT, of a transducer with a CTC head."""


def prediction_interface(spec: OnnxModelSpec, backend: Backend) -> PredictionInterface:
    decoder, joiner = spec.decoder, spec.joiner
    return PredictionInterface(
        y=_declared(backend, decoder.input("y", 0), "y", "int64", spec.context_size),
        decoder_out=_declared(backend, decoder.output("decoder_out", 0), "decoder_out", "float32", spec.joiner_dim),
        joiner_encoder_out=_declared(
            backend, joiner.input("encoder_out", 0), "encoder_out", "float32", spec.joiner_dim
        ),
        joiner_decoder_out=_declared(
            backend, joiner.input("decoder_out", 1), "decoder_out", "float32", spec.joiner_dim
        ),
        logit=_declared(backend, joiner.output("logit", 0), "logit", "float32", spec.vocab_size),
    )


def encoder_interface(spec: ExportedSpec, backend: Backend) -> EncoderInterface:
    """Raises BundleError where `backend` cannot run the encoder."""
    encoder = spec.encoder
    x, encoder_out = encoder.input("x", 0), encoder.output(spec.out, 0)
    if backend == "python":
        x_lens = encoder_out_lens = x  # names and types of the graph are not used
    elif len(encoder.inputs) < 2 or len(encoder.outputs) < 2:
        raise BundleError(
            f"Expected {encoder.file} to take and return lengths, which Triton's {backend} backend batches with",
            hint="export it again with lengths, or use the python backend",
        )
    else:
        x_lens, encoder_out_lens = encoder.input("x_lens", 1), encoder.output("encoder_out_lens", 1)
    return EncoderInterface(
        x=_declared(backend, x, "x", "float32", -1, spec.feature_dim),
        x_lens=_declared(backend, x_lens, "x_lens", "int64", 1),
        encoder_out=_declared(backend, encoder_out, "encoder_out", "float32", -1, spec.frame_channels),
        encoder_out_lens=_declared(backend, encoder_out_lens, "encoder_out_lens", "int64", 1),
        blank=blank_interface(spec, backend),
    )


def blank_interface(spec: ExportedSpec, backend: Backend) -> TensorSpec | None:
    """BLANK_OUTPUT as the encoder's component declares it; None where it gives none."""
    if spec.ctc_output is None:
        return None
    log_probs = spec.encoder.output(spec.ctc_output, -1)
    return TensorSpec(BLANK_OUTPUT, "float32" if backend == "python" else log_probs.dtype, (-1, 1))


def _declared(backend: Backend, found: TensorSpec, name: str, dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, dtype, shape) if backend == "python" else TensorSpec(found.name, found.dtype, shape)
