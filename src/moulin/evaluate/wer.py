"""Word and character error rates, with kaldialign's alignment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moulin.errors import EngineError
from moulin.extras import install_hint

Normalizer = Callable[[str], str]

Pair = tuple[str | None, str | None]
"""(reference word, recognised word); None on one side for an insertion or a deletion."""


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Errors against a reference of `words` words (or characters); add them up over recordings for the pooled rate."""

    words: int = 0
    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0

    @property
    def errors(self) -> int:
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Errors a word of the reference; any error against an empty reference counts as 100 %."""
        return self.errors / self.words if self.words else float(self.errors > 0)

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.words + other.words,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.substitutions + other.substitutions,
        )

    def figures(self) -> ErrorRate:
        return ErrorRate(
            round(self.rate, 6), self.errors, self.insertions, self.deletions, self.substitutions, self.words
        )


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """`WordErrors` in a report: `errors` of all kinds together, against `reference` words (or characters)."""

    rate: float
    errors: int
    insertions: int
    deletions: int
    substitutions: int
    reference: int


def count_word_errors(reference: str, hypothesis: str, *, normalize: Normalizer = str.upper) -> WordErrors:
    """Align the words of two texts, both normalised first."""
    return _count(normalize(reference).split(), normalize(hypothesis).split())


def count_character_errors(reference: str, hypothesis: str, *, normalize: Normalizer = str.upper) -> WordErrors:
    """Align the characters of two texts without their spaces, as scripts without spaces need it."""
    return _count(list("".join(normalize(reference).split())), list("".join(normalize(hypothesis).split())))


def align_words(reference: str, hypothesis: str, *, normalize: Normalizer = str.upper) -> list[Pair]:
    """The words of two texts beside each other."""
    nothing = ""  # no word is empty
    pairs = _kaldialign().align(normalize(reference).split(), normalize(hypothesis).split(), nothing)
    return [(said or None, heard or None) for said, heard in pairs]


def alignment_view(pairs: Sequence[Pair]) -> str:
    """Three lines in a fixed pitch: reference, recognised words, and the errors among them (S, I, D)."""
    said, heard, marks = ["said "], ["heard"], ["     "]
    for expected, got in pairs:
        width = max(len(expected or ""), len(got or ""), 1)
        mark = "" if expected == got else "I" if expected is None else "D" if got is None else "S"
        said.append((expected or "*" * width).ljust(width))
        heard.append((got or "*" * width).ljust(width))
        marks.append(mark.ljust(width))
    return "\n".join(" ".join(line).rstrip() for line in (said, heard, marks)).rstrip()


def digits_spelled_alike(text: str) -> str:
    """The normaliser of the digits-en recordings: people say OH for 0, the references write ZERO."""
    return " ".join("ZERO" if word == "OH" else word for word in text.upper().split())


def _count(reference: list[str], hypothesis: list[str]) -> WordErrors:
    counts = _kaldialign().edit_distance(reference, hypothesis)
    return WordErrors(len(reference), counts["ins"], counts["del"], counts["sub"])


def _kaldialign() -> Any:
    try:
        import kaldialign
    except ModuleNotFoundError as error:
        raise EngineError("Word error rates need kaldialign", hint=install_hint("bench")) from error
    return kaldialign
