"""Spelling of phrases in a vocabulary's tokens, as Icefall's recipes spell a training text.

With a `bpe.model` the package sentencepiece spells; Chinese and Japanese characters that it does not know are tokens of
their own, as in the recipes for Chinese with English. Without one a phrase is covered by the fewest tokens, of these
covers the one whose first tokens are the longest. Byte-BPE spells the bytes, with a space around each Chinese character
(Icefall's `byte_encode` and `tokenize_by_CJK_char`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moulin.bundle.sentencepiece_model import read_pieces
from moulin.errors import BundleError, EngineError, OptionsError
from moulin.extras import install_hint
from moulin.quoting import cut, listed, quoted
from moulin.spacing import is_cjk

if TYPE_CHECKING:
    from moulin.bundle.tokens import TokenTable

WORD_MARKER = "▁"
_RUNS = re.compile(r"\s+")
_NO_COVER = (1 << 30, 0)


class Speller:
    """Spells in the tokens of one vocabulary. Safe to call from several threads."""

    def __init__(self, tokens: TokenTable, bpe_model: Path | None) -> None:
        self._tokens, self._bpe_model = tokens, bpe_model
        self._ids: dict[str, int] = {}
        for token, symbol in enumerate(tokens.symbols):
            if tokens.is_text(token):
                self._ids.setdefault(symbol, token)
        self._byte_ids = tokens.byte_ids

    def spell(self, phrase: str) -> tuple[int, ...]:
        """The ids of `phrase`, in the case that the vocabulary has: see `TokenTable.spell`."""
        words = _RUNS.sub(" ", phrase).strip()
        if not words:
            raise OptionsError(f"Expected a phrase of letters, got {quoted(phrase)}")
        forms = self._forms(words)
        for byte_ids in ({}, self._byte_ids):  # bytes only where no form does without
            for form in forms:
                ids = self._spell(form, byte_ids)
                if ids:
                    return ids
        raise self._cannot(words)

    def _forms(self, words: str) -> list[str]:
        """`words` in the cases of the vocabulary's letters; as they are where it has both, and then in each."""
        if self._cases == {"upper"}:
            return [words.upper()]
        if self._cases == {"lower"}:
            return [words.lower()]
        return list(dict.fromkeys([words, words.upper(), words.lower()]))

    @cached_property
    def _cases(self) -> set[str]:
        return {"upper" if char != char.lower() else "lower" for char in self._letters if char.lower() != char.upper()}

    @cached_property
    def _letters(self) -> frozenset[str]:
        """All characters that the tokens spell."""
        return frozenset("".join(self._tokens.text([token]) for token in self._ids.values()))

    def _spell(self, words: str, byte_ids: dict[int, int]) -> tuple[int, ...] | None:
        """The ids of `words`, already in the case of the vocabulary; None where they cannot be spelt."""
        if self._bpe_model is None:
            return self._cover(self._marked(words), byte_ids)
        ids: list[int] = []
        for part in self._parts(words):
            for piece in self._encoded(part):
                found = self._of_piece(piece, byte_ids)
                if found is None:
                    return None
                ids += found
        return tuple(ids)

    # ---------------------------------------------------------------------------------------------- with a bpe.model

    def _parts(self, words: str) -> Iterator[str]:
        """The parts of `words` to be encoded each by itself: CJK characters alone where bpe.model does not know any."""
        if self._tokens.kind == "byte-bpe":
            yield self._tokens.byte_text(_spaced(words))
        elif self._spaces_cjk:
            yield _spaced(words)
        elif self._knows_cjk or not any(map(is_cjk, words)):
            yield words
        else:
            yield from _spaced(words).split(" ")

    def _encoded(self, part: str) -> Sequence[str]:
        if len(part) == 1 and is_cjk(part) and not self._knows_cjk:
            return [part]
        pieces: list[str] = self._processor.encode(part, out_type=str)
        return pieces

    def _of_piece(self, piece: str, byte_ids: dict[int, int]) -> list[int] | None:
        """The ids of one of sentencepiece's pieces, or of a text that it does not know."""
        if piece in self._ids:
            return [self._ids[piece]]
        if byte := self._tokens.byte_of(piece):
            return [byte_ids[byte[0]]] if byte[0] in byte_ids else None
        ids = [self._ids.get(char) for char in piece]  # the vocabulary may have characters that bpe.model has not
        return None if None in ids else ids  # type: ignore[return-value]

    @cached_property
    def _model_pieces(self) -> tuple[str, ...]:
        assert self._bpe_model is not None
        return read_pieces(self._bpe_model)

    @cached_property
    def _knows_cjk(self) -> bool:
        return any(is_cjk(char) for piece in self._model_pieces for char in piece)

    @cached_property
    def _processor(self) -> Any:
        try:
            import sentencepiece
        except ImportError:
            raise EngineError(
                f"Hotwords need the package sentencepiece, which spells them by {self._bpe_model}",
                hint=install_hint("hotwords"),
            ) from None
        try:
            return sentencepiece.SentencePieceProcessor(model_file=str(self._bpe_model))
        except (OSError, RuntimeError) as error:
            raise BundleError(f"{self._bpe_model} cannot spell: {cut(str(error), 200)}") from error

    # ----------------------------------------------------------------------------------------------- without a model

    def _marked(self, words: str) -> str:
        """`words` as the vocabulary writes them: a marker before each, or spaces as a token or not at all."""
        if self._tokens.kind == "byte-bpe":
            return WORD_MARKER + self._tokens.byte_text(_spaced(words)).replace(" ", WORD_MARKER)
        if self._tokens.kind == "char":
            space = next((symbol for symbol in (" ", WORD_MARKER) if symbol in self._ids), "")
            return words.replace(" ", space)
        spaced = _spaced(words) if self._spaces_cjk else _apart(words)
        return WORD_MARKER + spaced.replace(" ", WORD_MARKER)

    @cached_property
    def _spaces_cjk(self) -> bool:
        """Whether Chinese characters were words of their own in training: some follow a marker, none another one."""
        symbols = self._ids if self._bpe_model is None else self._model_pieces
        cjk = [symbol for symbol in symbols if any(map(is_cjk, symbol))]
        return any(symbol[0] == WORD_MARKER for symbol in cjk) and all(sum(map(is_cjk, one)) == 1 for one in cjk)

    @cached_property
    def _most_chars(self) -> int:
        return max(map(len, self._ids), default=0)

    def _cover(self, text: str, byte_ids: dict[int, int]) -> tuple[int, ...] | None:
        """The fewest tokens that spell `text`, of equally many the longest first; bytes where nothing else does."""
        end = len(text)
        # From each position on: characters spelt by bytes, tokens; and the next step's tokens and position.
        costs: list[tuple[int, int]] = [_NO_COVER] * end + [(0, 0)]
        steps: list[tuple[list[int], int]] = [([], end)] * end
        for begin in range(end - 1, -1, -1):
            if text[begin] == WORD_MARKER and begin + 1 < end and is_cjk(text[begin + 1]):
                costs[begin], steps[begin] = costs[begin + 1], ([], begin + 1)  # the marker is not needed there
            for stop in range(min(end, begin + self._most_chars), begin, -1):
                token = self._ids.get(text[begin:stop])
                if token is not None and (costs[stop][0], costs[stop][1] + 1) < costs[begin]:
                    costs[begin], steps[begin] = (costs[stop][0], costs[stop][1] + 1), ([token], stop)
            data = text[begin].encode()
            cost = (costs[begin + 1][0] + 1, costs[begin + 1][1] + len(data))
            if cost < costs[begin] and all(byte in byte_ids for byte in data):
                costs[begin], steps[begin] = cost, ([byte_ids[byte] for byte in data], begin + 1)
        if costs[0] >= _NO_COVER:
            return None
        ids: list[int] = []
        at = 0
        while at < end:
            tokens, at = steps[at]
            ids += tokens
        return tuple(ids)

    def _cannot(self, words: str) -> OptionsError:
        known = self._letters
        unknown = [char for char in dict.fromkeys(words) if not {char, char.upper(), char.lower()} & known]
        missing = [char for char in unknown if char != " "]
        why = f"it has no {listed(map(repr, missing))}" if missing else "no tokens of it spell these letters together"
        return OptionsError(
            f"The phrase {quoted(words)} cannot be spelt in the model's vocabulary: {why}",
            hint="write it as the model writes its transcripts: numbers in words, no signs that it never writes",
        )


def _spaced(words: str) -> str:
    """`words` with single spaces around each CJK character."""
    return " ".join("".join(f" {char} " if is_cjk(char) else char for char in words).split())


def _apart(words: str) -> str:
    """`words` with a space where CJK characters and others meet."""
    found = [words[:1]]
    for before, char in pairwise(words):
        if is_cjk(before) != is_cjk(char) and " " not in (before, char):
            found.append(" ")
        found.append(char)
    return "".join(found)
