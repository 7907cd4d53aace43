from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from moulin.bundle.choice import Mode, Wish
from moulin.bundle.files import Precision
from moulin.fetch.choose_files import PublishedFile, choose_files
from moulin.fetch.errors import FetchError

MODEL = ("encoder-a.onnx", "decoder-a.onnx", "joiner-a.onnx")
INT8 = ("encoder-a.int8.onnx", "joiner-a.int8.onnx")
ICEFALL = ("data/lang_bpe_500/tokens.txt", "data/lang_bpe_500/bpe.model", "data/lm/G.fst.txt", "exp/jit_script.pt")


def chosen(
    *names: str,
    inside: str = "",
    precision: Precision | None = None,
    language: str | None = None,
    mode: Mode | None = None,
) -> set[str]:
    published = [PublishedFile(PurePosixPath(name)) for name in names]
    choice = choose_files(published, "hf://a/b", inside=PurePosixPath(inside), wish=Wish(precision, mode, language))
    return {str(file.path) for file in choice.files}


@pytest.mark.parametrize(
    ("precision", "model"),
    [(None, {*MODEL}), ("fp32", {*MODEL}), ("int8", {*INT8, "decoder-a.onnx"})],
)
def test_one_variant_and_nothing_beside_it(precision: Precision | None, model: set[str]) -> None:
    others = ("README.md", ".gitattributes", "test_wavs/0.wav", "no-state-epoch-99.onnx", "export.sh", "epoch-9.pt")
    assert chosen(*MODEL, *INT8, "tokens.txt", "bpe.model", *others, precision=precision) == {
        *model,
        "tokens.txt",
        "bpe.model",
    }


def test_external_weights_come_with_their_model() -> None:
    weights = ("encoder-a.onnx.data", "encoder-a.int8.onnx.data", "encoder-a.weights", "shared.data", "x/other.data")
    names = (*MODEL, *INT8, "tokens.txt", *weights)
    assert chosen(*names) == {*MODEL, "tokens.txt", "encoder-a.onnx.data", "encoder-a.weights", "shared.data"}
    int8 = {*INT8, "decoder-a.onnx", "tokens.txt", "encoder-a.int8.onnx.data", "shared.data"}
    assert chosen(*names, precision="int8") == int8


def test_the_layout_of_icefall() -> None:
    exp = tuple(f"exp/{name}" for name in MODEL)
    vocabulary = {"data/lang_bpe_500/tokens.txt", "data/lang_bpe_500/bpe.model"}
    assert chosen(*ICEFALL, *exp, "exp/pretrained.pt") == {*exp, *vocabulary}


@pytest.mark.parametrize(
    ("checkpoints", "best"),
    [
        (["exp/epoch-9.pt", "exp/epoch-30.pt"], "exp/epoch-30.pt"),
        (["exp/epoch-30.pt", "exp/pretrained.pt", "exp/best-valid-loss.pt"], "exp/pretrained.pt"),
        (["pretrained.pt", "old/pretrained.pt"], "pretrained.pt"),
        (["epoch-9.pt", "model.safetensors"], "model.safetensors"),
        (["exp/pretrained-iter-1224000-avg-14.pt", "exp/cpu_jit.pt"], "exp/pretrained-iter-1224000-avg-14.pt"),
        (["model.pt", "jit_model.pt", "jit_model-chunk-16-left-64.pt"], "model.pt"),
        (["exp/fintuned_epoch_9_avg_2.pt", "exp/cpu_jit_epoch_9_avg_2.pt"], "exp/fintuned_epoch_9_avg_2.pt"),
        (["exp/finetuned_a.pt", "exp/epoch-9.pt"], "exp/finetuned_a.pt"),
        (["exp/pretrained_epoch_7_avg_1.pt", "exp/epoch-4.pt", "exp/epoch-7.pt"], "exp/pretrained_epoch_7_avg_1.pt"),
        (["exp/pretrained-epoch-9-avg-2.pt", "exp/pretrained-epoch-30-avg-9.pt"], "exp/pretrained-epoch-30-avg-9.pt"),
        (["exp/pretrained-epoch-30-avg-1.pt", "exp/pretrained-epoch-30-avg-9.pt"], "exp/pretrained-epoch-30-avg-9.pt"),
        (["exp/pretrained-iter-9-avg-2.pt", "exp/pretrained-epoch-3-avg-1.pt"], "exp/pretrained-epoch-3-avg-1.pt"),
        (["exp/pretrained.pt", "rnn_lm_exp/pretrained.pt", "data/lang_bpe_500/HLG.pt"], "exp/pretrained.pt"),
        (["exp/best-valid-loss.pt", "exp/best-train-loss.pt"], "exp/best-valid-loss.pt"),
        (["exp/checkpoint-8000.pt", "exp/checkpoint-12000.pt"], "exp/checkpoint-12000.pt"),
        (["exp/conformer.pt", "exp/encoder_jit_trace.pt", "exp/jit_script.pt"], "exp/conformer.pt"),
    ],
)
def test_one_checkpoint_where_there_is_no_onnx(checkpoints: list[str], best: str) -> None:
    vocabulary = {"data/lang_bpe_500/tokens.txt", "data/lang_bpe_500/bpe.model"}
    assert chosen(*ICEFALL, *checkpoints) == {best, *vocabulary}


@pytest.mark.parametrize("inside", ["chunk-16", "chunk-16/encoder-a.onnx"])
def test_a_folder_or_an_encoder_names_one_of_several(inside: str) -> None:
    several = [f"{folder}/{name}" for folder in ("chunk-16", "chunk-32") for name in MODEL]
    assert chosen(*several, "tokens.txt", inside=inside) == {*several[:3], "tokens.txt"}


def test_an_encoder_names_one_of_several_labels() -> None:
    several = [f"{role}-{label}.onnx" for label in "ab" for role in ("encoder", "decoder", "joiner")]
    assert chosen(*several, "tokens.txt", inside="encoder-b.onnx") == {*several[3:], "tokens.txt"}


def test_exports_of_several_languages() -> None:
    roles = ("encoder", "decoder", "joiner")
    before = [f"{lang}_{role}.onnx" for lang in ("de", "pt_BR", "zh-en") for role in roles]
    assert chosen(*before, "tokens.txt", language="pt-br") == {*before[3:6], "tokens.txt"}
    behind = [f"{role}-{lang}.int8.onnx" for lang in ("de", "en") for role in roles]
    tokens = ("tokens-de.txt", "tokens-en.txt", "en-bpe.model")
    assert chosen(*behind, *tokens, language="en") == {*behind[3:], "tokens-en.txt", "en-bpe.model"}
    folders = [f"{lang}/{name}" for lang in ("de", "en") for name in (*MODEL, "tokens.txt")]
    assert chosen(*folders, language="en") == {*folders[4:]}
    with pytest.raises(FetchError, match="hf://a/b holds 2 models: de, en"):
        chosen(*folders)
    # One language needs no choice.
    assert chosen(*before[:3], "de_tokens.txt") == {*before[:3], "de_tokens.txt"}
    dashes = [f"{lang}-{role}-epoch-9-avg-1.onnx" for lang in ("DE", "yue") for role in roles]
    assert chosen(*dashes, "tokens.txt", language="de") == {*dashes[:3], "tokens.txt"}
    labels = [f"{role}-{lang}-epoch-9-avg-1.onnx" for lang in ("de", "en") for role in roles]
    assert chosen(*labels, "tokens.txt", language="en") == {*labels[3:], "tokens.txt"}
    with pytest.raises(FetchError, match="hf://a/b holds models of 2 languages: de, en"):
        chosen(*labels, "tokens.txt")
    checkpoints = ("de/pretrained.pt", "de/tokens.txt", "en/pretrained.pt", "en/tokens.txt")
    assert chosen(*checkpoints, language="en") == {*checkpoints[2:]}
    with pytest.raises(FetchError, match="hf://a/b has no checkpoint for the language fr"):
        chosen(*checkpoints, language="fr")
    # A checkpoint that names no language is no reason to refuse the exports that do.
    published = [PublishedFile(PurePosixPath(name)) for name in (*before, "tokens.txt", "pretrained.pt")]
    choice = choose_files(published, "hf://a/b", wish=Wish(language="de", form="checkpoint"))
    assert {str(file.path) for file in choice.files} == {*before[:3], "tokens.txt"}
    # What stands before is no language.
    assert chosen(*MODEL, "tokens.txt", "ctc_encoder.onnx") == {*MODEL, "tokens.txt"}


@pytest.mark.parametrize("labels", [("-small-epoch-9-avg-1", "-large-epoch-9-avg-1"), ("-a", "-epoch-9-avg-1")])
def test_labels_that_are_different_models(labels: tuple[str, str]) -> None:
    names = [f"{role}{label}.onnx" for label in labels for role in ("encoder", "decoder", "joiner")]
    with pytest.raises(FetchError, match="hf://a/b holds 2 models: encoder-"):
        chosen(*names, "tokens.txt")


def test_averages_of_one_training() -> None:
    labels = ("-epoch-30-avg-9", "-epoch-30-avg-10-with-averaged-model")
    names = [f"{role}{label}.onnx" for label in labels for role in ("encoder", "decoder", "joiner")]
    assert chosen(*names, "tokens.txt") == {*names[3:], "tokens.txt"}


def test_folders_named_by_what_they_are_for() -> None:
    names = [f"{folder}/{name}" for folder in ("offline", "streaming") for name in (*MODEL, "tokens.txt")]
    assert chosen(*names, mode="streaming") == {*names[4:]}
    assert chosen(*names, mode="offline") == {*names[:4]}
    with pytest.raises(FetchError, match="hf://a/b holds 2 models: offline, streaming"):
        chosen(*names)


@pytest.mark.parametrize(
    ("labels", "best"),
    [
        (["-chunk-32-left-256", "-chunk-16-left-64", "-chunk-16-left-128"], "-chunk-16-left-128"),
        (["-chunk-8-left-64", "-chunk-16-left--1", "-chunk-8-left--1"], "-chunk-8-left--1"),
        (["-chunk-64-left-128", "-chunk-8-left-128"], "-chunk-8-left-128"),
        (["-1920ms", "-480ms", "-960ms"], "-480ms"),
        (["-epoch-12-avg-4", "-epoch-99-avg-1"], "-epoch-99-avg-1"),
        (["-epoch-12-avg-4", "-epoch-12-avg-5"], "-epoch-12-avg-5"),
        (["-iter-400000-avg-9", "-epoch-3-avg-1"], "-epoch-3-avg-1"),
        (["", "-epoch-12-avg-4"], ""),
        (["-epoch-9-avg-1-chunk-16-left-64", "-epoch-30-avg-1-chunk-32-left-64"], "-epoch-30-avg-1-chunk-32-left-64"),
    ],
)
def test_one_of_several_labels(labels: list[str], best: str) -> None:
    names = [f"{role}{label}.onnx" for label in labels for role in ("encoder", "decoder", "joiner")]
    assert chosen(*names, "tokens.txt") == {
        *(f"{role}{best}.onnx" for role in ("encoder", "decoder", "joiner")),
        "tokens.txt",
    }


def test_a_wished_precision_chooses_among_the_forms_that_have_it() -> None:
    forms = [f"{role}-chunk-{chunk}-left-64.onnx" for chunk in (16, 32) for role in ("encoder", "decoder", "joiner")]
    assert "encoder-chunk-32-left-64.int8.onnx" in chosen(
        *forms, "encoder-chunk-32-left-64.int8.onnx", "tokens.txt", precision="int8"
    )


def test_links_of_a_git_repository_are_passed_over() -> None:
    """`epoch-99.pt` of 13 bytes holds the name `pretrained-epoch-3-avg-1.pt`."""
    sizes = {"exp/pretrained.pt": 24, "exp/pretrained-epoch-30-avg-9.pt": 280_000_000, "tokens.txt": 24}
    published = [PublishedFile(PurePosixPath(name), size) for name, size in sizes.items()]
    choice = choose_files(published, "hf://a/b")
    assert [str(file.path) for file in choice.files] == ["tokens.txt", "exp/pretrained-epoch-30-avg-9.pt"]


@pytest.mark.parametrize(
    ("place", "beside"),
    [
        ("tokens.txt", ()),
        ("data/tokens.txt", ()),
        ("data/lang_char/tokens.txt", ()),
        ("lang/tokens.txt", ("lang/bpe.model",)),
        ("data/lang_bpe_500/tokens.txt", ("data/lang_bpe_500/bpe.model",)),
        ("exp/tokens.txt", ("exp/bpe.model",)),
        ("data/lang_bpe_500/bpe.model", ()),
        ("data/lang_bpe_500/unigram_500.model", ()),
    ],
)
def test_places_of_a_vocabulary(place: str, beside: tuple[str, ...]) -> None:
    exp = [f"exp/{name}" for name in MODEL]
    phones = ("data/lang_phone/tokens.txt",) if place.endswith("tokens.txt") else ()
    assert chosen(*exp, place, *beside, *phones) == {*exp, place, *beside}


def test_a_checkpoint_names_one_of_several() -> None:
    several = ["exp/pretrained-iter-1-avg-2.pt", "exp/pretrained-epoch-3-avg-4.pt"]
    vocabulary = {"data/lang_bpe_500/tokens.txt", "data/lang_bpe_500/bpe.model"}
    assert chosen(*ICEFALL, *several, inside=several[0]) == {several[0], *vocabulary}


@pytest.mark.parametrize(
    ("names", "inside", "precision", "message"),
    [
        (["pretrained-a.pt", "pretrained-b.pt", "tokens.txt"], "", None, "holds 2 checkpoints: pretrained-a.pt, pret"),
        (["README.md", "some.int8.onnx"], "", None, "hf://a/b holds no transducer: expected .*CTC"),
        ([*MODEL, "tokens.txt"], "exp", None, "hf://a/b/exp holds no transducer: "),
        ([*MODEL, "tokens.txt"], "encoder-b.onnx", None, "There is no encoder-b.onnx in hf://a/b"),
        ([*MODEL], "", None, "hf://a/b has no tokens.txt"),
        ([*MODEL, "x/tokens.txt", "y/tokens.txt"], "", None, "hf://a/b has 2 vocabularies: x/tokens.txt, y/tokens.txt"),
        ([*MODEL[:2], "tokens.txt"], "", None, r"hf://a/b has no joiner\*.onnx"),
        ([*MODEL, "tokens.txt"], "", "fp16", "hf://a/b has no fp16 encoder, only fp32"),
        (["x/encoder.onnx", "y/encoder.onnx"], "", None, "hf://a/b holds 2 models: x, y .hint: name one: hf://a/b/x"),
        ([*MODEL, "encoder-b.onnx", "tokens.txt"], "", None, "hf://a/b holds 2 models: encoder-a.onnx, encoder-b.onnx"),
    ],
)
def test_no_model_or_several(names: list[str], inside: str, precision: Precision | None, message: str) -> None:
    with pytest.raises(FetchError, match=message) as raised:
        chosen(*names, inside=inside, precision=precision)
    assert "/tmp" not in str(raised.value)
