"""Vocabularies of a bpe.model, against sentencepiece itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.load import load_bundle
from moulin.bundle.sentencepiece_model import read_pieces
from moulin.bundle.tokens import read_tokens, tokens_text
from moulin.demo.files import DEMO_MODEL
from moulin.errors import BundleError

from .conftest import CopyBundle
from .sentence_pieces import SENTENCES, SPECIAL, pieces_of, trained


def written(folder: Path, model: bytes) -> Path:
    file = folder / "bpe.model"
    file.write_bytes(model)
    return file


def test_the_demo_model() -> None:
    bpe_model, tokens = DEMO_MODEL / "bpe.model", DEMO_MODEL / "tokens.txt"
    table = read_tokens(bpe_model, len(read_pieces(bpe_model)))
    assert list(table.symbols) == pieces_of(bpe_model.read_bytes())
    assert table == read_tokens(tokens, len(table))
    assert tokens_text(table).split() == tokens.read_text().split()


@pytest.mark.parametrize(
    ("kind", "size", "byte_fallback"),
    [("bpe", 37, False), ("unigram", 24, False), ("char", 22, False), ("word", 13, False), ("bpe", 300, True)],
)
def test_the_pieces_are_those_of_sentencepiece(kind: str, size: int, byte_fallback: bool, tmp_path: Path) -> None:
    model = trained(size, kind, byte_fallback=byte_fallback)
    expected = pieces_of(model)
    assert ("<0xE4>" in expected) is byte_fallback
    table = read_tokens(written(tmp_path, model), len(expected))
    assert list(table.symbols) == expected
    assert [table.symbols[token] for token in table.skipped_ids] == ["<blk>", "<unk>"]
    assert table.text([expected.index(piece) for piece in ("<blk>", "<sos/eos>", "<unk>")]) == ""
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(tokens_text(table), encoding="utf-8")
    assert read_tokens(tokens, len(expected)) == table


@pytest.mark.parametrize("byte_fallback", [False, True])
def test_what_sentencepiece_takes_apart_is_text_again(byte_fallback: bool, tmp_path: Path) -> None:
    import sentencepiece

    model = trained(300 if byte_fallback else 37, byte_fallback=byte_fallback)
    table = read_tokens(written(tmp_path, model), len(pieces_of(model)))
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    for sentence in (*SENTENCES[:2], *(["süß 中文 two"] if byte_fallback else [])):
        assert table.text(processor.encode(sentence)) == sentence


def test_an_unknown_piece_of_another_name(tmp_path: Path) -> None:
    table = read_tokens(written(tmp_path, trained(37, unknown="[UNK]")), 37)
    assert table.unk_id == 2


def test_a_model_without_a_blank(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"Expected <blk> as the first piece of .*bpe.model, got '<unk>'"):
        read_pieces(written(tmp_path, trained(37, special=())))
    with pytest.raises(BundleError, match="as the first piece"):
        read_pieces(written(tmp_path, trained(37, special=tuple(reversed(SPECIAL)))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:c534\nsize 244865\n", "no complete SentencePiece"),
        (b"", "holds no pieces"),
        (trained(37)[:200], "no complete SentencePiece"),
        (b"\x0a\x07\x0a\x02\xff\xfe\x15\x00\x00", "no complete SentencePiece"),
    ],
    ids=["pointer", "empty", "truncated", "no UTF-8"],
)
def test_what_is_no_model(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=message):
        read_pieces(written(tmp_path, content))


@pytest.mark.parametrize("form", ["onnx", "checkpoint"])
def test_a_model_without_tokens_txt(form: str, copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")
    (folder / "tokens.txt").unlink()
    bpe_model = written(folder, trained(37))
    spec = load_bundle(folder) if form == "onnx" else load_checkpoint_spec(folder, streaming=True)
    assert list(spec.tokens.symbols) == pieces_of(bpe_model.read_bytes())
    assert [file.name for file in spec.all_files].count("bpe.model") == 1
    bpe_model.write_bytes(trained(36))
    with pytest.raises(BundleError, match=r"Expected 37 pieces in .*bpe.model, .*, got 36") as caught:
        load_bundle(folder) if form == "onnx" else load_checkpoint_spec(folder, streaming=True)
    assert "take tokens.txt from the training" in str(caught.value.hint)


def test_tokens_txt_comes_first(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")
    tokens = load_bundle(folder).tokens
    written(folder, trained(37))
    spec = load_bundle(folder)
    assert spec.tokens == tokens
    assert {"tokens.txt", "bpe.model"} <= {file.name for file in spec.all_files}
