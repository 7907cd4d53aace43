"""Vocabularies (tokens.txt or bpe.model), and the conversion of token ids to text and words.

Four kinds of vocabulary occur in Icefall's recipes: BPE pieces with `▁` at the start of a word, single characters
(Chinese), both mixed, and byte-level BPE in one of two spellings: SentencePiece's `<0xE4>` byte fallback, or
pieces over 256 printable characters that stand for bytes (`icefall/byte_utils.py`). Every token is kept as its bytes of
UTF-8, so that all four kinds become text in the same way: join and decode.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from moulin.bundle.sentencepiece_model import read_pieces
from moulin.bundle.spelling import WORD_MARKER, Speller
from moulin.bundle.untrusted_file import errors_of, expect_regular
from moulin.errors import BundleError
from moulin.quoting import quoted
from moulin.spacing import is_cjk

BLANK_ID = 0

MOST_TOKENS = 1_000_000
"""The largest vocabulary of a model; the largest in use have some 250,000 tokens."""

_MOST_BEYOND = 100_000
"""Lines of tokens.txt beyond the model's own tokens: disambiguation symbols."""
_MOST_LINE_BYTES = 4096
_MOST_DIGITS = 18
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_DISAMBIGUATION = re.compile(r"#\d+")
_SPECIAL = re.compile(r"<(?!0x[0-9A-Fa-f]{2}>)[^<>]+>")
_UNKNOWN = ("<unk>", "<UNK>")

# Byte b is written as the b-th of these code points (icefall/byte_utils.py, PRINTABLE_BASE_CHARS); characters that NFKC
# changes are not among them.
_BYTE_CODE_POINTS = [
    *range(256, 288),
    *range(32, 127),
    *(c for c in range(288, 423) if c not in (306, 307, 319, 320, 329, 383)),
]
_BYTE_CHARS = "".join(map(chr, _BYTE_CODE_POINTS))
_CHAR_TO_BYTE = {chr(code_point): byte for byte, code_point in enumerate(_BYTE_CODE_POINTS)}
_CONTROL_CHARS = {char for char, byte in _CHAR_TO_BYTE.items() if byte < 0x20}
_SPACES = re.compile(r"(?<=(\S))\s+(?=(\S))")


class WordSpan(NamedTuple):
    """A word and the tokens that spell it: positions `first` to `last` (both included) of the hypothesis."""

    word: str
    first: int
    last: int


@dataclass(frozen=True)
class TokenTable:
    """Token ids 0 to N-1 and their symbols. Blank is 0."""

    symbols: tuple[str, ...]
    bpe_model: Path | None = field(default=None, compare=False)
    """The SentencePiece model that spells phrases in these tokens; None leaves that to the best cover."""

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def unk_id(self) -> int | None:
        """The id of `<unk>`, which searches never emit; None where the vocabulary has none."""
        return next((self.symbols.index(symbol) for symbol in _UNKNOWN if symbol in self.symbols), None)

    @cached_property
    def skipped_ids(self) -> tuple[int, ...]:
        """The tokens that no search emits: blank, and `<unk>` where there is one."""
        return (BLANK_ID,) if self.unk_id is None else (BLANK_ID, self.unk_id)

    def spell(self, phrase: str) -> tuple[int, ...]:
        """The ids that spell `phrase`, by `bpe_model` where there is one: see `moulin.bundle.spelling`.

        Its case is folded to what the vocabulary has. Raises OptionsError where the vocabulary cannot spell it,
        BundleError for a damaged bpe.model, and EngineError where the package sentencepiece is missing.
        """
        return self._speller.spell(phrase)

    @cached_property
    def _speller(self) -> Speller:
        return Speller(self, self.bpe_model)

    def is_text(self, token: int) -> bool:
        """Whether `token` stands for text, and is neither special (`<blk>`) nor a single byte (`<0xE4>`)."""
        symbol = self.symbols[token]
        return not (_SPECIAL.fullmatch(symbol) or _BYTE_TOKEN.fullmatch(symbol))

    @cached_property
    def byte_ids(self) -> dict[int, int]:
        """The ids of the tokens `<0x00>` to `<0xFF>` by byte."""
        return {byte[0]: token for token, symbol in enumerate(self.symbols) if (byte := self.byte_of(symbol))}

    @staticmethod
    def byte_of(symbol: str) -> bytes:
        """The byte that a `symbol` such as `<0xE4>` stands for, nothing for others."""
        found = _BYTE_TOKEN.fullmatch(symbol)
        return bytes([int(found[1], 16)]) if found else b""

    @staticmethod
    def byte_text(text: str) -> str:
        """`text` as byte-BPE sees it: a printable character for each byte of its UTF-8."""
        return "".join(_BYTE_CHARS[byte] for byte in text.encode("utf-8"))

    @cached_property
    def kind(self) -> str:
        """The kind of vocabulary for display: byte-bpe, bpe, char or bpe+char."""
        if self._is_byte_bpe:
            return "byte-bpe"
        cjk = any(is_cjk(symbol[0]) for symbol in self.symbols)
        if not self.marks_words:
            return "char"
        return "bpe+char" if cjk else "bpe"

    def text(self, ids: Sequence[int]) -> str:
        """The text of `ids`. Bytes that are not valid UTF-8 are dropped, as in Icefall.

        Spaces between Chinese or Japanese characters are dropped too: byte-BPE recipes insert them for training.
        """
        if (pieces := self._whole_pieces(ids)) is not None:
            return "".join(pieces).strip()
        text = b"".join(self._bytes[i] for i in ids).decode("utf-8", errors="ignore").strip()
        return _SPACES.sub(_space_between_words, text)

    def words(self, ids: Sequence[int]) -> list[WordSpan]:
        """Group `ids` into words: at `▁`, and each Chinese or Japanese character as its own word.

        In a vocabulary without any `▁` each token (in byte BPE, each character) is a word.
        """
        if self.marks_words and (pieces := self._whole_pieces(ids)) is not None:
            return _words_of_whole(pieces)
        words: list[WordSpan] = []
        open_word = False
        for piece, first, last in self._pieces(ids):
            if piece.isspace():
                open_word = False
                continue
            if piece[0] == " ":
                piece, open_word = piece[1:], False
            if open_word and not is_cjk(piece[-1]) and not is_cjk(words[-1].word[-1]) and self._joins(first, words[-1]):
                words[-1] = WordSpan(words[-1].word + piece, words[-1].first, last)
            else:
                words.append(WordSpan(piece, first, last))
                open_word = True
        return words

    def _joins(self, first: int, word: WordSpan) -> bool:
        return self.marks_words or first <= word.last

    def _whole_pieces(self, ids: Sequence[int]) -> list[str] | None:
        """The texts of `ids` if each token is whole (`_whole`), else None. This fast path covers most recordings in
        languages with spaces; a GPU decodes thousands of tokens in the time that `_pieces` takes for them."""
        whole = self._whole
        pieces = [text for i in ids if (text := whole[i]) is not None]
        return pieces if len(pieces) == len(ids) else None

    def _pieces(self, ids: Sequence[int]) -> Iterator[tuple[str, int, int]]:
        """The text of `ids` in pieces (whole tokens where possible, else characters), each with the positions of the
        first and last token that hold its bytes."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        first, waiting = 0, False
        for position, token in enumerate(ids):
            whole = self._whole[token]
            if whole is not None and not waiting:
                yield whole, position, position
                continue
            for byte in self._bytes[token]:
                if not waiting:
                    first = position
                for char in decoder.decode(bytes([byte])):
                    yield char, first, position
                waiting = bool(decoder.getstate()[0])

    @cached_property
    def _whole(self) -> tuple[str | None, ...]:
        """The text of each whole token, None for others. Whole are an optional space followed by letters of a script
        with spaces between words, and a space alone."""

        def whole(data: bytes) -> str | None:
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                return None
            letters = text.removeprefix(" ")
            if text == " ":
                return text
            return text if letters and not any(char.isspace() or is_cjk(char) for char in letters) else None

        return tuple(whole(data) for data in self._bytes)

    @cached_property
    def marks_words(self) -> bool:
        """Whether `▁` marks the beginnings of words."""
        return any(symbol.startswith(WORD_MARKER) for symbol in self.symbols)

    @cached_property
    def _is_byte_bpe(self) -> bool:
        plain = [s.replace(WORD_MARKER, "") for s in self.symbols if not _SPECIAL.fullmatch(s)]
        # Latvian and Lithuanian pieces consist of the same characters, and some decode to valid multi-byte UTF-8
        # ("žī"). But these languages use letters that stand for control characters (ā, č, ė), which occur in no
        # transcript; a byte vocabulary contains those only if it contains every byte.
        letters = {char for symbol in plain for char in symbol}
        return (
            letters <= _CHAR_TO_BYTE.keys()
            and (letters.isdisjoint(_CONTROL_CHARS) or letters >= _CONTROL_CHARS)
            and any(_decodes_to_multibyte(symbol) for symbol in plain)
        )

    @property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes of UTF-8 of each token; a space stands before a word, and special tokens have none."""
        return self._bytes

    @cached_property
    def _bytes(self) -> tuple[bytes, ...]:
        return tuple(self._symbol_bytes(symbol) for symbol in self.symbols)

    def _symbol_bytes(self, symbol: str) -> bytes:
        if byte := self.byte_of(symbol):
            return byte
        if _SPECIAL.fullmatch(symbol):
            return b""
        spaced = symbol.replace(WORD_MARKER, " ")
        if self._is_byte_bpe and all(char in _CHAR_TO_BYTE for char in spaced):
            return bytes(_CHAR_TO_BYTE[char] for char in spaced)
        return spaced.encode("utf-8")


def _words_of_whole(pieces: Sequence[str]) -> list[WordSpan]:
    """`TokenTable.words` where no token ends within a character and only spaces separate words."""
    words: list[WordSpan] = []
    word, first, last = "", 0, 0
    for position, piece in enumerate(pieces):
        if piece[0] != " " and word and last == position - 1:
            word += piece
            last = position
            continue
        if word:
            words.append(WordSpan(word, first, last))
        word, first, last = piece.removeprefix(" "), position, position
    if word:
        words.append(WordSpan(word, first, last))
    return words


def read_tokens(file: Path, vocab_size: int, bpe_model: Path | None = None) -> TokenTable:
    """Read tokens.txt (lines of `SYMBOL ID`), which must contain the ids 0 to vocab_size - 1, each once; or a bpe.model
    (`*.model`), which must have vocab_size pieces. `bpe_model` beside a tokens.txt will spell phrases.

    Disambiguation symbols (`#0`) after them are ignored, as in Icefall. Raises BundleError.
    """
    if not 0 < vocab_size <= MOST_TOKENS:
        raise BundleError(f"Expected a vocabulary of 1 to {MOST_TOKENS:,} tokens, the model has {quoted(vocab_size)}")
    with errors_of(file):
        return _read(file, vocab_size, bpe_model)


def _read(file: Path, vocab_size: int, bpe_model: Path | None) -> TokenTable:
    if file.suffix == ".model":
        pieces = read_pieces(file)
        if len(pieces) != vocab_size:
            raise BundleError(
                f"Expected {vocab_size} pieces in {file}, as many as the model has tokens, got {len(pieces)}",
                hint="its vocabulary is not this bpe.model alone: take tokens.txt from the training",
            )
        return TokenTable(pieces, file)
    symbols = _symbols(file, vocab_size)
    words = [token for token, symbol in symbols.items() if not _DISAMBIGUATION.fullmatch(symbol)]
    missing = next((token for token in range(vocab_size) if token not in symbols), None)
    extra = next((token for token in sorted(words) if token >= vocab_size or token < 0), None)
    if missing is not None or extra is not None:
        detail = f"token {missing} is missing" if missing is not None else f"token {extra} is beyond the model"
        raise BundleError(
            f"Expected {vocab_size} tokens in {file}, as the model was exported with, got {len(words)} ({detail})",
            hint="take tokens.txt from the same training as the ONNX files",
        )
    return TokenTable(tuple(symbols[token] for token in range(vocab_size)), bpe_model)


def _symbols(file: Path, vocab_size: int) -> dict[int, str]:
    """The symbols of tokens.txt by id. Reading stops where there are more than the model's and some disambiguation
    symbols, so that its memory is bounded by the model's vocabulary."""
    most = vocab_size + _MOST_BEYOND
    symbols: dict[int, str] = {}
    for number, line in _lines(file, most):
        if not line.strip():
            continue
        # Where the symbol is a space, splitting leaves the id alone.
        *symbol, last = line.rsplit(maxsplit=1)
        try:
            token = int(last) if len(last) <= _MOST_DIGITS else None
        except ValueError:
            token = None
        if token is None:
            raise BundleError(f"Expected 'SYMBOL ID' on line {number} of {file}, got {quoted(line)}")
        if token in symbols:
            raise BundleError(f"{file} names token {token} twice, the second time on line {number}")
        if len(symbols) >= most:
            raise BundleError(
                f"Expected {vocab_size} tokens in {file}, as the model was exported with, got more than {most:,}",
                hint="take tokens.txt from the same training as the ONNX files",
            )
        symbols[token] = symbol[0] if symbol else " "
    return symbols


def _lines(file: Path, most: int) -> Iterator[tuple[int, str]]:
    """The lines of `file` with their numbers, from 1. Only a line feed ends one, as U+2028 may be a token.

    Raises BundleError for what is not UTF-8, for very long lines, and for very many empty ones.
    """
    expect_regular(file)
    begin = 0
    with file.open("rb") as opened:
        number = 0
        while line := opened.readline(_MOST_LINE_BYTES + 1):
            number += 1
            if len(line) > _MOST_LINE_BYTES:
                raise BundleError(f"Expected 'SYMBOL ID' on line {number} of {file}, got a longer line")
            if number > 2 * most:
                raise BundleError(f"Expected one token on each line of {file}, got {number:,} lines")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise BundleError(f"{file} is not UTF-8 text (byte {begin + error.start})") from None
            begin += len(line)
            yield number, text.removesuffix("\n")


def tokens_text(tokens: TokenTable) -> str:
    """The content of a tokens.txt for `tokens`: lines of `SYMBOL ID`."""
    return "".join(f"{symbol} {token}\n" for token, symbol in enumerate(tokens.symbols))


def _decodes_to_multibyte(symbol: str) -> bool:
    try:
        return not bytes(_CHAR_TO_BYTE[char] for char in symbol).decode("utf-8").isascii()
    except UnicodeDecodeError:
        return False


def _space_between_words(spaces: re.Match[str]) -> str:
    return "" if is_cjk(spaces[1]) and is_cjk(spaces[2]) else spaces[0]
