"""Spelling of phrases against sentencepiece itself, and against all covers of a phrase where there is no model."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from moulin.bundle.load import load_bundle
from moulin.bundle.tokens import TokenTable, read_tokens
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.errors import BundleError, EngineError, OptionsError

from .byte_bpe import BYTE_CHARS, byte_encode

NUM_WORDS = 10_000
SPECIAL = ("<blk>", "<sos/eos>", "<unk>")
CHINESE = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))


@cache
def words(kind: str) -> tuple[str, ...]:
    """Words of a made-up language: 10,000 different ones, a few syllables each."""
    rng = random.Random(kind)
    onsets, vowels = (
        ["b", "c", "d", "f", "g", "k", "l", "m", "n", "p", "qu", "r", "s", "sh", "t"],
        ["a", "e", "i", "ou"],
    )
    latin = [onset + vowel for onset in onsets for vowel in vowels]
    syllables = {"latin": latin, "chinese": list(CHINESE)}[kind]
    found: dict[str, None] = {}
    while len(found) < NUM_WORDS:
        found["".join(rng.choices(syllables, k=rng.randint(1, 5)))] = None
    return tuple(found)


@cache
def trained(kind: str, vocab_size: int, language: str, *, byte_fallback: bool = False) -> bytes:
    """A bpe.model as Icefall's recipes train them, of sentences in which some words are frequent."""
    rng = random.Random(0)
    known = words(language)
    sentences = [" ".join(rng.choices(known[:2000] if i % 3 else known, k=8)) for i in range(4000)]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=written,
        vocab_size=vocab_size,
        model_type=kind,
        user_defined_symbols=list(SPECIAL[:2]),
        unk_id=2,
        bos_id=-1,
        eos_id=-1,
        character_coverage=0.98 if byte_fallback else 1.0,
        byte_fallback=byte_fallback,
        num_threads=1,
        minloglevel=2,
    )
    return written.getvalue()


def with_model(tmp_path: Path, model: bytes) -> TokenTable:
    """The vocabulary of a model: its tokens.txt, with the bpe.model beside."""
    file = tmp_path / "bpe.model"
    file.write_bytes(model)
    size = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()
    pieces = read_tokens(file, size).symbols
    (tmp_path / "tokens.txt").write_text("".join(f"{piece} {token}\n" for token, piece in enumerate(pieces)))
    return read_tokens(tmp_path / "tokens.txt", size, file)


def table(*symbols: str, bpe_model: Path | None = None) -> TokenTable:
    return TokenTable((*SPECIAL, *symbols), bpe_model)


def spelt(tokens: TokenTable, phrase: str) -> str:
    return " ".join(tokens.symbols[token] for token in tokens.spell(phrase))


# ------------------------------------------------------------------------------------------------------ sentencepiece


@pytest.mark.parametrize(
    ("kind", "vocab_size", "language", "byte_fallback"),
    [
        ("unigram", 500, "latin", False),
        ("unigram", 5000, "latin", False),
        ("bpe", 500, "latin", False),
        ("bpe", 5000, "latin", False),
        ("bpe", 600, "latin", True),
        ("unigram", 1000, "chinese", True),
        ("unigram", 1000, "chinese", False),
        ("bpe", 2000, "chinese", False),
    ],
)
def test_ten_thousand_words_are_spelt_as_sentencepiece_does(
    tmp_path: Path, kind: str, vocab_size: int, language: str, byte_fallback: bool
) -> None:
    model = trained(kind, vocab_size, language, byte_fallback=byte_fallback)
    judge = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokens = with_model(tmp_path, model)
    wanted = judge.encode(list(words(language)))
    assert len(wanted) == NUM_WORDS
    for word, ids in zip(words(language), wanted, strict=True):
        assert tokens.spell(word) == tuple(ids), word
    phrases = [" ".join(words(language)[at : at + 3]) for at in range(0, 300, 3)]
    for phrase, ids in zip(phrases, judge.encode(phrases), strict=True):
        assert tokens.spell(phrase.upper()) == tuple(ids), phrase


def test_bytes_only_where_nothing_else_spells(tmp_path: Path) -> None:
    """A word in the other case is folded, and not spelt by its bytes."""
    model = trained("bpe", 600, "latin", byte_fallback=True)
    judge = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokens = with_model(tmp_path, model)
    assert tokens.spell("BAKA") == tuple(judge.encode("baka"))
    assert tokens.spell("bak½a") == tuple(judge.encode("bak½a"))
    assert any(tokens.symbols[token].startswith("<0x") for token in tokens.spell("bakéa"))


def test_the_bundled_model() -> None:
    judge = sentencepiece.SentencePieceProcessor(model_file=str(DEMO_MODEL / "bpe.model"))
    tokens = load_bundle(DEMO_MODEL).tokens
    rng = random.Random(1)
    digits = "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE OH FOX VOTES GHOST SIXTIES".replace("SIXTIES", "SIXTHS")
    for _ in range(2000):
        phrase = " ".join(rng.choices(digits.split(), k=rng.randint(1, 6)))
        assert tokens.spell(phrase) == tuple(judge.encode(phrase))
        assert tokens.spell(phrase.lower()) == tuple(judge.encode(phrase))


def test_the_bundled_streaming_model_has_none_and_spells_its_words() -> None:
    tokens = load_bundle(DEMO_STREAMING_MODEL).tokens
    assert tokens.bpe_model is None
    assert spelt(tokens, "three oh eight") == "▁THREE ▁OH ▁EIGHT"


def test_ids_are_those_of_tokens_txt(tmp_path: Path) -> None:
    """bpe.model numbers its pieces in another way where tokens.txt has Chinese characters in front."""
    model = trained("bpe", 500, "latin")
    pieces = with_model(tmp_path, model).symbols[3:]
    mixed = table("你", "好", *pieces, bpe_model=tmp_path / "bpe.model")
    judge = sentencepiece.SentencePieceProcessor(model_proto=model)
    english = " ".join(judge.encode("baka", out_type=str))
    assert spelt(mixed, "你好 baka 好") == f"你 好 {english} 好"
    assert spelt(mixed, "你好BAKA") == f"你 好 {english}"


def test_chinese_characters_as_words_of_their_own(tmp_path: Path) -> None:
    """The recipes that put spaces between Chinese characters have a marker before each."""
    (tmp_path / "corpus").write_text("\n".join(" ".join(CHINESE[i : i + 5]) + " abc" for i in range(290)) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus"),
        model_prefix=str(tmp_path / "bpe"),
        vocab_size=500,
        model_type="bpe",
        character_coverage=1.0,
        user_defined_symbols="<blk>,<sos/eos>",
        unk_id=2,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    judge = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "bpe.model"))
    tokens = read_tokens(tmp_path / "bpe.model", judge.vocab_size())
    assert tokens.spell(CHINESE[:4]) == tuple(judge.encode(" ".join(CHINESE[:4])))


def test_byte_bpe_by_its_model(tmp_path: Path) -> None:
    """As Icefall's `byte_encode` of a text with spaces around Chinese characters."""
    sentences = [byte_encode(" ".join(CHINESE[i : i + 4]) + " caña") for i in range(290)] * 3
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=written,
        vocab_size=400,
        model_type="bpe",
        user_defined_symbols=[*SPECIAL[:2]],
        unk_id=2,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    tokens = with_model(tmp_path, written.getvalue())
    assert tokens.kind == "byte-bpe"
    judge = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    assert tokens.spell(f"{CHINESE[:3]} caña") == tuple(judge.encode(byte_encode(f"{' '.join(CHINESE[:3])} caña")))


def test_without_the_package_that_reads_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = with_model(tmp_path, trained("bpe", 500, "latin"))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(EngineError, match=r"need the package sentencepiece.*hotwords"):
        tokens.spell("baka")


def test_a_damaged_model(tmp_path: Path) -> None:
    tokens = with_model(tmp_path, trained("bpe", 500, "latin"))
    (tmp_path / "bpe.model").write_bytes((tmp_path / "bpe.model").read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"bpe\.model"):
        tokens.spell("baka")


# ---------------------------------------------------------------------------------------------------- without a model


def covers(text: str, symbols: Sequence[str]) -> Iterator[list[str]]:
    if not text:
        yield []
    for symbol in symbols:
        if text.startswith(symbol):
            yield from ([symbol, *rest] for rest in covers(text[len(symbol) :], symbols))


@given(
    pieces=st.lists(st.text("abc▁", min_size=1, max_size=4), max_size=12, unique=True),
    phrase=st.text("abc", min_size=1, max_size=7),
)
def test_the_best_cover(pieces: list[str], phrase: str) -> None:
    """The fewest tokens, then the longest first ones."""
    symbols = ["▁a", *pieces] if "▁a" not in pieces else pieces
    every = list(covers(f"▁{phrase}", symbols))
    tokens = table(*symbols)
    if not every:
        with pytest.raises(OptionsError, match="cannot be spelt"):
            tokens.spell(phrase)
        return
    fewest = min(map(len, every))
    best = max((cover for cover in every if len(cover) == fewest), key=lambda cover: [len(piece) for piece in cover])
    assert spelt(tokens, phrase) == " ".join(best)


@pytest.mark.parametrize(
    ("symbols", "phrase", "wanted"),
    [
        (("▁NVIDIA", "▁N", "V", "I", "D", "A"), "nvidia", "▁NVIDIA"),
        (("▁nvidia", "▁n"), "NVIDIA", "▁nvidia"),
        (("▁Nvidia", "▁n", "v", "i", "d", "a"), "Nvidia", "▁Nvidia"),
        (("▁Nvidia", "▁n", "v", "i", "d", "a"), "NVIDIA", "▁n v i d i a"),
        (("▁STRASSE", "▁X"), "straße", "▁STRASSE"),
        (("▁A", "▁B"), " a \t b\n", "▁A ▁B"),
        (("你", "好"), "你 好", "你 好"),
        (("你", "好", " "), "你 好", "你   好"),
        (("你", "好", "▁HELLO", "▁A"), "你好hello", "你 好 ▁HELLO"),
        (("▁你", "▁好", "▁HELLO"), "你好hello 好", "▁你 ▁好 ▁HELLO ▁好"),
        (("▁你好", "好", "你"), "你好", "▁你好"),
        (("▁a", "<0xC3>", "<0xA9>", "b"), "aéb", "▁a <0xC3> <0xA9> b"),
    ],
)
def test_vocabularies_without_a_model(symbols: tuple[str, ...], phrase: str, wanted: str) -> None:
    assert spelt(table(*symbols), phrase) == wanted


def test_byte_bpe_without_a_model() -> None:
    tokens = table("▁", *BYTE_CHARS, f"▁{byte_encode('天')}")
    assert tokens.kind == "byte-bpe"
    wanted = [f"▁{byte_encode('天')}", "▁", *byte_encode("é")]
    assert [tokens.symbols[token] for token in tokens.spell("天é")] == wanted
    assert tokens.text(tokens.spell("天é b")) == "天 é b"


@pytest.mark.parametrize("phrase", ["", "  ", "\n"])
def test_nothing_to_spell(phrase: str) -> None:
    with pytest.raises(OptionsError, match="Expected a phrase of letters"):
        table("▁a").spell(phrase)


def test_what_cannot_be_spelt_is_named() -> None:
    with pytest.raises(OptionsError, match=r"'ab½ 9' cannot be spelt .* it has no '½', '9'"):
        table("▁A", "B").spell("ab½ 9")
    with pytest.raises(OptionsError, match="no tokens of it spell these letters together"):
        table("▁A", "B").spell("b a")


@pytest.mark.parametrize("phrase", ["<blk>", "<unk>", "a <sos/eos>", "<0x41>"])
def test_special_symbols_spell_nothing(phrase: str) -> None:
    with pytest.raises(OptionsError, match="cannot be spelt"):
        table("▁a", "<0x41>").spell(phrase)
    with pytest.raises(OptionsError, match="cannot be spelt"):
        load_bundle(DEMO_MODEL).tokens.spell(phrase)
