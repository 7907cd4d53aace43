from __future__ import annotations

import contextlib
import itertools
import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moulin.bundle.tokens import TokenTable, WordSpan, read_tokens
from moulin.errors import BundleError

from .byte_bpe import BYTE_CHARS, byte_encode

SPECIAL = ("<blk>", "<sos/eos>", "<unk>")


def table(*symbols: str) -> TokenTable:
    return TokenTable((*SPECIAL, *symbols))


def ids(vocabulary: TokenTable, *symbols: str) -> list[int]:
    return [vocabulary.symbols.index(symbol) for symbol in symbols]


def written(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "tokens.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


# -------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "content",
    [
        "<blk> 0\n▁A 1\nB 2\n",
        "<blk> 0\n▁A 1\nB 2",
        "\ufeff<blk> 0\n▁A 1\nB 2\n",
        "<blk> 0\r\n▁A 1\r\nB 2\r\n",
        "<blk>\t0\n▁A\t1\nB   2\n\n",
        "B 2\n<blk> 0\n▁A 1\n",
        "<blk> 0\n▁A 1\nB 2\n#0 3\n#1 4\n",
    ],
    ids=["plain", "no-newline", "bom", "crlf", "tabs", "unordered", "disambiguation"],
)
def test_read(tmp_path: Path, content: str) -> None:
    assert read_tokens(written(tmp_path, content), 3).symbols == ("<blk>", "▁A", "B")


def test_a_space_as_symbol(tmp_path: Path) -> None:
    """Some character vocabularies name the space itself."""
    vocabulary = read_tokens(written(tmp_path, "<blk> 0\n  1\nA 2\n"), 3)
    assert vocabulary.symbols == ("<blk>", " ", "A")
    assert vocabulary.text([2, 1, 2]) == "A A"


def test_a_line_separator_inside_a_token(tmp_path: Path) -> None:
    """Only newlines end a line, not every character that str.splitlines() takes for one."""
    assert read_tokens(written(tmp_path, "<blk> 0\na\x85b 1\na\u2028b 2\n"), 3).symbols[1:] == ("a\x85b", "a\u2028b")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("<blk> 0\nA 1\n", r"Expected 3 tokens in .*, got 2 \(token 2 is missing\)"),
        ("<blk> 0\nA 1\nB 2\nC 3\n", r"Expected 3 tokens in .*, got 4 \(token 3 is beyond the model\)"),
        ("<blk> 0\nA 1\nB 3\n", r"got 3 \(token 2 is missing\)"),
        ("<blk> 0\nA 1\nB 2\nC -1\n", r"token -1 is beyond the model"),
        ("<blk> 0\nA 1\nB 1\n", "names token 1 twice, the second time on line 3"),
        ("<blk> 0\nA one\nB 2\n", "Expected 'SYMBOL ID' on line 2 of .*, got 'A one'"),
        ("<blk>\nA\nB\n", "Expected 'SYMBOL ID' on line 1"),
        ("version https://git-lfs.github.com/spec/v1\n", "Expected 'SYMBOL ID' on line 1"),
        ("", r"Expected 3 tokens in .*, got 0 \(token 0 is missing\)"),
        ("<blk> 0\n你 1\n".encode("gb18030"), r"is not UTF-8 text \(byte 8\)"),
        ("<blk> 0\n".encode("utf-16"), r"is not UTF-8 text \(byte 0\)"),
    ],
)
def test_damaged(tmp_path: Path, content: str | bytes, match: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(BundleError, match=match) as caught:
        read_tokens(file, 3)
    assert str(file) in caught.value.message


@given(st.binary(max_size=60))
def test_any_file_is_tokens_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = written(tmp_path_factory.mktemp("content"), content)
    with contextlib.suppress(BundleError):
        assert len(read_tokens(file, 2)) == 2


def test_unk() -> None:
    assert table("a").unk_id == 2
    assert TokenTable(("<blk>", "<UNK>", "a")).unk_id == 1
    assert TokenTable(("<blk>", "a")).unk_id is None


# --------------------------------------------------------------------------------------------- the kinds of vocabulary

ENGLISH = table("▁HE", "LLO", "▁WORLD", "S", "▁", "'", "▁I")
CHINESE = table(*"今天气不错你好世界")
MIXED = table("▁HEL", "LO", *"今天气不错", "▁", "▁WORLD", "S")
FALLBACK = table("▁HE", "LLO", *"今天", *(f"<0x{byte:02X}>" for byte in range(256)), "▁")


def test_bpe() -> None:
    chosen = ids(ENGLISH, "▁HE", "LLO", "▁WORLD", "S", "▁I", "'", "S")
    assert ENGLISH.kind == "bpe"
    assert ENGLISH.text(chosen) == "HELLO WORLDS I'S"
    assert ENGLISH.words(chosen) == [WordSpan("HELLO", 0, 1), WordSpan("WORLDS", 2, 3), WordSpan("I'S", 4, 6)]


def test_bpe_without_a_marker_at_the_start_or_with_the_marker_alone() -> None:
    chosen = ids(ENGLISH, "LLO", "▁", "S", "▁", "▁WORLD")
    assert ENGLISH.text(chosen) == "LLO S  WORLD"
    assert ENGLISH.words(chosen) == [WordSpan("LLO", 0, 0), WordSpan("S", 2, 2), WordSpan("WORLD", 4, 4)]


def test_special_symbols_are_silent() -> None:
    chosen = ids(ENGLISH, "<sos/eos>", "▁HE", "<unk>", "LLO", "<blk>")
    assert ENGLISH.text(chosen) == "HELLO"
    assert ENGLISH.words(chosen) == [WordSpan("HELLO", 1, 3)]


def test_characters() -> None:
    chosen = ids(CHINESE, *"你好世界")
    assert CHINESE.kind == "char"
    assert CHINESE.text(chosen) == "你好世界"
    assert CHINESE.words(chosen) == [WordSpan(char, at, at) for at, char in enumerate("你好世界")]


def test_chinese_and_english() -> None:
    chosen = ids(MIXED, "今", "天", "▁HEL", "LO", "气", "▁", "▁WORLD", "S", "不")
    assert MIXED.kind == "bpe+char"
    assert MIXED.text(chosen) == "今天 HELLO气  WORLDS不"
    assert MIXED.words(chosen) == [
        WordSpan("今", 0, 0),
        WordSpan("天", 1, 1),
        WordSpan("HELLO", 2, 3),
        WordSpan("气", 4, 4),
        WordSpan("WORLDS", 6, 7),
        WordSpan("不", 8, 8),
    ]


def test_spaces_between_chinese_characters_are_dropped() -> None:
    chosen = ids(MIXED, "今", "▁", "天", "▁WORLD", "▁", "气", "▁", "▁", "错")
    assert MIXED.text(chosen) == "今天 WORLD 气错"
    assert [span.word for span in MIXED.words(chosen)] == ["今", "天", "WORLD", "气", "错"]


def test_byte_fallback() -> None:
    chosen = ids(FALLBACK, "▁HE", "LLO", "▁", "<0xE4>", "<0xBD>", "<0xA0>", "天", "<0x41>")
    assert FALLBACK.text(chosen) == "HELLO 你天A"
    assert FALLBACK.words(chosen) == [
        WordSpan("HELLO", 0, 1),
        WordSpan("你", 3, 5),
        WordSpan("天", 6, 6),
        WordSpan("A", 7, 7),
    ]


def test_bytes_that_form_no_character_are_dropped() -> None:
    for broken in (["<0xE4>"], ["<0xE4>", "<0xBD>"], ["<0xBD>", "<0xA0>"], ["<0xFF>"], ["<0xC0>", "<0x80>"]):
        chosen = ids(FALLBACK, "▁HE", *broken, "LLO", *broken)
        assert FALLBACK.text(chosen) == "HELLO"
        assert [span.word for span in FALLBACK.words(chosen)] == ["HELLO"]


# ------------------------------------------------------------------------------------------------------------ byte BPE


def test_the_byte_encoding_is_icefalls() -> None:
    """Worked out by hand from PRINTABLE_BASE_CHARS (E4 BD A0, E5 A5 BD); and nothing in it changes under NFKC."""
    assert byte_encode("你好") == "ƋţŅƌŋţ"
    every_byte = "".join(map(chr, range(0x800)))
    assert unicodedata.normalize("NFKC", byte_encode(every_byte)) == byte_encode(every_byte)


BYTE_BPE = table(
    *(f"▁{byte_encode(char)}" for char in "你好世界天气"), *map(byte_encode, ("HEL", "LO", "天")), "▁", "ƍ", "Ī"
)


def test_byte_bpe() -> None:
    chosen = ids(BYTE_BPE, *(f"▁{byte_encode(char)}" for char in "天气"), "▁", "HEL", "LO", byte_encode("天"))
    assert BYTE_BPE.kind == "byte-bpe"
    assert BYTE_BPE.text(chosen) == "天气 HELLO天"
    assert BYTE_BPE.words(chosen) == [
        WordSpan("天", 0, 0),
        WordSpan("气", 1, 1),
        WordSpan("HELLO", 3, 4),
        WordSpan("天", 5, 5),
    ]


def split_at(text: str, cuts: set[int]) -> list[str]:
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(text)), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(edges) if begin < end]


# No control characters: transcripts have none, and the vocabulary is told by that.
TRANSCRIPTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)


@given(TRANSCRIPTS, st.sets(st.integers(0, 120)))
def test_any_text_comes_back_from_byte_bpe(text: str, cuts: set[int]) -> None:
    """Tokens may end in the middle of a character; SentencePiece writes a space as the word marker."""
    pieces = split_at(byte_encode(text).replace(" ", "▁"), cuts)
    vocabulary = table("▁" + byte_encode("你"), *dict.fromkeys(pieces))
    assume(not any(symbol.startswith("<") and symbol.endswith(">") for symbol in pieces))
    chosen = ids(vocabulary, *pieces)
    assert vocabulary.kind == "byte-bpe"
    expected = byte_decoded_by_hand(text)
    assert vocabulary.text(chosen) == expected

    words = vocabulary.words(chosen)
    assert "".join(span.word for span in words) == "".join(expected.split())
    covered(vocabulary, chosen, words)


def byte_decoded_by_hand(text: str) -> str:
    """`text` with whitespace normalised, and none between Chinese or Japanese characters."""
    out: list[str] = []
    words = [" " if char.isspace() else char for char in text]
    for char in words:
        if char == " " and (not out or out[-1] == " "):
            continue
        if len(out) > 1 and out[-1] == " " and spaceless(out[-2]) and spaceless(char):
            out[-1] = char
        else:
            out.append(char)
    return "".join(out).strip()


def spaceless(char: str) -> bool:
    name = unicodedata.name(char, "")
    return name.startswith(("CJK UNIFIED", "CJK COMPAT", "HIRAGANA", "KATAKANA"))


def covered(vocabulary: TokenTable, chosen: list[int], words: list[WordSpan]) -> None:
    """The spans are in order, and the bytes of each word are in the tokens of its span."""
    for before, after in itertools.pairwise(words):
        assert before.first <= before.last
        assert before.first <= after.first
        assert before.last <= after.last
    for span in words:
        assert 0 <= span.first <= span.last < len(chosen)
        assert span.word in vocabulary.text(chosen[span.first : span.last + 1])


@given(st.lists(st.sampled_from(range(len(FALLBACK))), max_size=12))
def test_any_ids_give_text_and_the_words_in_it(chosen: list[int]) -> None:
    text, words = FALLBACK.text(chosen), FALLBACK.words(chosen)
    assert "".join(span.word for span in words) == "".join(text.split())
    assert text == text.strip()
    covered(FALLBACK, chosen, words)


@given(st.lists(st.sampled_from(range(len(ENGLISH))), max_size=12))
def test_english_words_are_the_text_split_at_spaces(chosen: list[int]) -> None:
    words = ENGLISH.words(chosen)
    assert [span.word for span in words] == ENGLISH.text(chosen).split()
    covered(ENGLISH, chosen, words)


@pytest.mark.parametrize(
    "text",
    [
        "příliš žluťoučký kůň úpěl ďábelské ódy",
        "dzīve mežģīņu rūķītis šūpoles ūķis ežīgs žīds čūskas ķēve ļoti",
        "pažįstu žąsį ėjo šūkis ųžį grįžį ūšį čia",
        "ça où été noël œuvre",
        "ĉu ŝanĝiĝi ĥoro ĵaŭdo ŭa",
        "zażółć gęślą jaźń",
        "ŽĪDS MEŽĢĪNE ŪĶIS ČETRI ĀBOLS",
    ],
    ids=["czech", "latvian", "lithuanian", "french", "esperanto", "polish", "latvian-capitals"],
)
def test_letters_with_accents_are_no_bytes(text: str) -> None:
    """Many of these letters stand for bytes in byte BPE, and some neighbours, as žī, for a valid character."""
    words = text.split()
    pieces = {piece for word in words for size in (1, 2, 3) for piece in split_at(word, set(range(0, 40, size)))}
    pieces |= {word[at : at + 2] for word in words for at in range(len(word) - 1)}
    vocabulary = table(*(f"▁{word}" for word in words), *sorted(pieces))
    assert vocabulary.kind == "bpe"
    assert vocabulary.text(ids(vocabulary, *(f"▁{word}" for word in words))) == text
    spelled = [token for word in words for token in ids(vocabulary, *word)]
    assert vocabulary.text(spelled) == text.replace(" ", "")


def test_every_byte_as_a_token_is_byte_bpe() -> None:
    """A vocabulary with all 256 bytes has control characters too."""
    vocabulary = table(*(char for char in BYTE_CHARS if char != " "), "▁" + byte_encode("é"))
    assert vocabulary.kind == "byte-bpe"
    assert vocabulary.text(ids(vocabulary, "▁" + byte_encode("é"), *byte_encode("ß"))) == "éß"
