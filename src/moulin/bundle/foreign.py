"""Recognition of ONNX models that are not Icefall transducers although their files have the same names.

NeMo, Whisper, Paraformer and others are recognised by metadata and tensor names and refused before anything is run:
they would give wrong results or fail with an unclear error. The metadata are those of sherpa-onnx's export scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.spec import SUBSAMPLING_FACTOR
from moulin.errors import BundleError
from moulin.quoting import cut, listed

_TRANSDUCERS = "moulin serves transducers trained with Icefall"


class _Kind(NamedTuple):
    """`what` the model is and why it is not served; recognised by the beginning of its metadata `model_type`, or by any
    of `inputs`."""

    what: str
    hint: str
    model_types: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()


_KINDS = (
    _Kind(
        "is a NeMo export ({type}): its features are normalised, its decoder is an LSTM",
        f"sherpa-onnx runs it; {_TRANSDUCERS}",
        ("EncDec",),
        ("audio_signal", "targets", "target_length"),
    ),
    _Kind("is a Whisper model", f"sherpa-onnx runs it; {_TRANSDUCERS}", ("whisper",), ("mel", "input_features")),
    _Kind("is a Moonshine model", f"sherpa-onnx runs it; {_TRANSDUCERS}", ("moonshine",)),
    _Kind(
        "is a Paraformer or SenseVoice model of FunASR",
        f"sherpa-onnx runs it; {_TRANSDUCERS}",
        ("paraformer", "sense_voice", "funasr"),
        ("textnorm",),
    ),
    _Kind("is a FireRedASR model", f"sherpa-onnx runs it; {_TRANSDUCERS}", ("fire-red-asr", "fire_red_asr")),
    _Kind(
        "is a WeNet model: its encoder keeps other states than Icefall's Conformer",
        f"WeNet's runtime and sherpa-onnx run it; {_TRANSDUCERS}",
        ("wenet", "u2"),
        ("att_cache", "cnn_cache", "required_cache_size", "chunk_xs"),
    ),
    _Kind("is an ESPnet model", f"ESPnet runs it; {_TRANSDUCERS}", ("espnet",), ("feats", "feats_length")),
    _Kind(
        "is a ConvEmformer of Icefall, an encoder that moulin does not have",
        "sherpa-ncnn runs it; of Icefall's streaming encoders moulin serves Zipformer2, Zipformer, Conformer and LSTM",
        ("conv-emformer", "emformer"),
    ),
    _Kind("is a text or translation model", _TRANSDUCERS, (), ("input_ids",)),
)


_ROLES = {"encoder_out": "encoder", "decoder_out": "decoder", "logit": "joiner"}
"""What a part of a transducer is, by its output's name in every export of Icefall's."""


def refuse_swapped(encoder: OnnxGraph, decoder: OnnxGraph, joiner: OnnxGraph) -> None:
    """Raise BundleError where one of the files is another part of the transducer than its name says."""
    for graph, role in ((encoder, "encoder"), (decoder, "decoder"), (joiner, "joiner")):
        roles = {_ROLES[tensor.name] for tensor in graph.outputs if tensor.name in _ROLES}
        if roles and role not in roles:
            raise BundleError(
                f"{graph.file} is named as the {role}, but has the tensors of the {' and '.join(sorted(roles))}",
                hint="files seem to have each other's names: rename them",
            )


def refuse_foreign(encoder: OnnxGraph) -> None:
    """Raise BundleError, which names the kind of model, where `encoder` is not that of an Icefall transducer."""
    if gives_log_probs_alone(encoder):
        raise BundleError(f"{encoder.file} is a CTC model", hint="decode it with --head ctc")
    refuse_other_kinds(encoder)


def refuse_other_kinds(encoder: OnnxGraph) -> None:
    """`refuse_foreign` without the refusal of CTC models: for those of Icefall."""
    model_type = encoder.metadata.get("model_type", "")
    inputs = {tensor.name for tensor in encoder.inputs}
    for kind in _KINDS:
        if _starts(model_type, kind.model_types) or inputs.intersection(kind.inputs):
            what = kind.what.format(type=cut(model_type) or ", ".join(sorted(inputs.intersection(kind.inputs))))
            raise BundleError(f"{encoder.file} {what}", hint=kind.hint)
    _refuse_other_features(encoder)


def gives_log_probs_alone(encoder: OnnxGraph) -> bool:
    """Whether `encoder` is a CTC model: its head's log-probabilities are its first output, not beside encoder_out."""
    named = [tensor.name for tensor in encoder.outputs]
    log_probs = any("log_prob" in name for name in named) and "encoder_out" not in named
    return log_probs or encoder.metadata.get("model_type", "").endswith("_ctc")


def refuse_foreign_decoder(decoder: OnnxGraph) -> None:
    """Raise BundleError where `decoder` is not stateless: a stateless decoder has one input, the tokens."""
    inputs = {tensor.name for tensor in decoder.inputs}
    if inputs.intersection(("targets", "target_length")) or len(inputs) > 1:
        states = listed(tensor.name for tensor in decoder.inputs)
        raise BundleError(
            f"{decoder.file} is no stateless decoder: expected the tokens y alone, got {states}, as NeMo and other "
            "recurrent decoders take",
            hint=f"sherpa-onnx runs NeMo's exports; {_TRANSDUCERS}",
        )


def _refuse_other_features(encoder: OnnxGraph) -> None:
    """Raise BundleError for features other than Icefall's fbank, and for output frames other than 40 ms."""
    tests: tuple[tuple[str, Callable[[str], bool], str, str], ...] = (
        (
            "feature",
            lambda value: value == "whisper",
            "was trained on Whisper's log-mel features, which moulin does not compute",
            "use an export of a model trained on Kaldi fbank (Icefall's default)",
        ),
        (
            "normalize_samples",
            lambda value: value == "0",
            "expects samples scaled to 16-bit integers (normalize_samples=0), not Icefall's [-1, 1]",
            "moulin serves models trained with Icefall",
        ),
        (
            "normalize_type",
            lambda value: value not in ("", "NA", "none"),
            "expects features normalised over the recording (normalize_type), as NeMo's are",
            "moulin serves models trained with Icefall",
        ),
        (
            "subsampling_factor",
            lambda value: value != str(SUBSAMPLING_FACTOR),
            f"makes one frame of another number of features than Icefall's {SUBSAMPLING_FACTOR} (subsampling_factor)",
            "moulin serves models trained with Icefall",
        ),
    )
    for key, differs, what, hint in tests:
        value = encoder.metadata.get(key)
        if value is not None and differs(value):
            raise BundleError(f"{encoder.file} {what}", hint=hint)


def _starts(model_type: str, beginnings: tuple[str, ...]) -> bool:
    return bool(beginnings) and model_type.lower().startswith(tuple(beginning.lower() for beginning in beginnings))
