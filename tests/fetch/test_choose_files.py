from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from moulin.bundle.choice import Wish
from moulin.bundle.files import Precision
from moulin.fetch.choose_files import PublishedFile, choose_files
from moulin.fetch.errors import FetchError

MODEL = ("encoder-a.onnx", "decoder-a.onnx", "joiner-a.onnx")
INT8 = ("encoder-a.int8.onnx", "joiner-a.int8.onnx")
ICEFALL = ("data/lang_bpe_500/tokens.txt", "data/lang_bpe_500/bpe.model", "data/lm/G.fst.txt", "exp/jit_script.pt")


def chosen(*names: str, inside: str = "", precision: Precision | None = None) -> set[str]:
    published = [PublishedFile(PurePosixPath(name)) for name in names]
    choice = choose_files(published, "hf://a/b", inside=PurePosixPath(inside), wish=Wish(precision))
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


def test_a_checkpoint_names_one_of_several() -> None:
    several = ["exp/pretrained-iter-1-avg-2.pt", "exp/pretrained-epoch-3-avg-4.pt"]
    vocabulary = {"data/lang_bpe_500/tokens.txt", "data/lang_bpe_500/bpe.model"}
    assert chosen(*ICEFALL, *several, inside=several[0]) == {several[0], *vocabulary}


@pytest.mark.parametrize(
    ("names", "inside", "precision", "message"),
    [
        (["pretrained-a.pt", "pretrained-b.pt", "tokens.txt"], "", None, "holds 2 checkpoints: pretrained-a.pt, pret"),
        (["README.md", "model.int8.onnx"], "", None, "hf://a/b holds no transducer: expected .*CTC"),
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
