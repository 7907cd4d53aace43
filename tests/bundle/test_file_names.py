"""Names of published models, read as a person reads them."""

from __future__ import annotations

import math
from pathlib import PurePosixPath

import pytest

from moulin.bundle.file_names import (
    OnnxName,
    checkpoint_rank,
    is_checkpoint_name,
    languages_of,
    names_language,
    parse_ctc_name,
    parse_onnx_name,
    what_was_trained,
)


@pytest.mark.parametrize(
    ("name", "role", "language", "label", "precision"),
    [
        ("encoder.onnx", "encoder", None, "", "fp32"),
        ("joiner-epoch-99-avg-1.int8.onnx", "joiner", None, "-epoch-99-avg-1", "int8"),
        ("decoder_jit_trace-pnnx.fp16.onnx", "decoder", None, "_jit_trace-pnnx", "fp16"),
        ("de_encoder.onnx", "encoder", "de", "", "fp32"),
        ("encoder-zh-en.onnx", "encoder", "zh-en", "", "fp32"),
        ("encoder-de-epoch-3-avg-1.onnx", "encoder", "de", "-epoch-3-avg-1", "fp32"),
        ("my_encoder.onnx", "encoder", "my", "", "fp32"),  # Burmese
    ],
)
def test_networks(name: str, role: str, language: str | None, label: str, precision: str) -> None:
    found = parse_onnx_name(PurePosixPath("folder", name))
    assert found is not None
    assert (found.role, found.language, found.label, found.precision) == (role, language, label, precision)


@pytest.mark.parametrize(
    "name", ["model.onnx", "joiner_encoder_proj.onnx", "xx_encoder.onnx", "encoder.pt", "tokens.txt"]
)
def test_other_files(name: str) -> None:
    assert parse_onnx_name(PurePosixPath(name)) is None


@pytest.mark.parametrize(
    ("label", "chunk", "left", "training"),
    [
        ("-epoch-99-avg-1", None, -1.0, "-epoch-99-avg-1"),
        ("-epoch-99-avg-1-chunk-16-left-128", 320.0, 128.0, "-epoch-99-avg-1"),
        ("-chunk-16-left--1", 320.0, math.inf, ""),
        ("-chunk--1-left-64", None, 64.0, ""),
        ("-960ms", 960.0, -1.0, ""),
    ],
)
def test_chunk_and_left_context(label: str, chunk: float | None, left: float, training: str) -> None:
    name = OnnxName(PurePosixPath("e.onnx"), "encoder", None, label, "fp32")
    assert (name.chunk, name.left_context, name.training) == (chunk, left, training)


def test_checkpoints_in_order_of_preference() -> None:
    names = [
        "best-train-loss.pt",
        "best-valid-loss.pt",
        "mymodel-epoch-9-avg-3.pt",
        "checkpoint-9000.pt",
        "checkpoint-12000.pt",
        "epoch-9.pt",
        "epoch-30.pt",
        "pretrained-iter-9000-avg-8.pt",
        "pretrained-epoch-30-avg-9.pt",
        "pretrained-epoch-30-avg-10.pt",
        "model.pt",
        "pretrained.pt",
        "model.safetensors",
    ]
    ranks = [checkpoint_rank(PurePosixPath(name)) or () for name in names]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(names)
    assert checkpoint_rank(PurePosixPath("weights.pt")) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("epoch-30.pt", True),
        ("weights.safetensors", True),
        ("cpu_jit.pt", False),
        ("encoder_jit_trace-pnnx.pt", False),
        ("HLG.pt", False),
        ("L_disambig.pt", False),
        ("G_4_gram.pt", False),
        ("epoch-30.onnx", False),
    ],
)
def test_files_that_may_hold_a_checkpoint(name: str, expected: bool) -> None:
    assert is_checkpoint_name(PurePosixPath(name)) is expected


def test_labels_of_one_training_are_equal_without_their_epoch() -> None:
    assert what_was_trained("-epoch-99-avg-1") == what_was_trained("-iter-400000-avg-10-with-averaged-model") == ""
    assert what_was_trained("_small-epoch-9-avg-1") == "small"


def test_languages_are_whole_words() -> None:
    assert names_language(PurePosixPath("models/zh-en/epoch-9.pt"), "zh_EN")
    assert not names_language(PurePosixPath("models/then/epoch-9.pt"), "en")


@pytest.mark.parametrize(
    ("name", "label", "precision"),
    [
        ("model.onnx", "", "fp32"),
        ("model.int8.onnx", "", "int8"),
        ("model.fp16.onnx", "", "fp16"),
        ("ctc-epoch-99-avg-1-chunk-16-left-128.onnx", "-epoch-99-avg-1-chunk-16-left-128", "fp32"),
        ("ctc-epoch-99-avg-1.int8.onnx", "-epoch-99-avg-1", "int8"),
        ("model-small.int8.onnx", "-small", "int8"),
    ],
)
def test_names_of_ctc_models(name: str, label: str, precision: str) -> None:
    """Forms of one model have one label: Icefall's export writes model.onnx and model.int8.onnx together."""
    parsed = parse_ctc_name(PurePosixPath(name))
    assert parsed is not None
    assert (parsed.label, parsed.precision) == (label, precision)


@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("digits-en", ("en",)),
        ("sherpa-onnx-streaming-zipformer-bilingual-zh-en-2023-02-20", ("zh", "en")),
        ("icefall-asr-commonvoice-fr-pruned/exp", ("fr",)),
        ("vosk-model-small-ru", ("ru",)),
        ("my-model-is-it", ()),
        ("zipformer2", ()),
        ("fr_fr", ("fr",)),
    ],
)
def test_languages_in_the_name_of_a_model(name: str, languages: tuple[str, ...]) -> None:
    assert languages_of(name) == languages
