"""Word error rate, with kaldialign's alignment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moulin.errors import EngineError

Normalizer = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Errors against a reference of `words` words; add them up over recordings for the pooled rate."""

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


def count_word_errors(reference: str, hypothesis: str, *, normalize: Normalizer = str.upper) -> WordErrors:
    """Align the words of two texts, both normalised first."""
    try:
        import kaldialign
    except ModuleNotFoundError as error:
        raise EngineError("Word error rates need kaldialign", hint="pip install 'moulin[bench]'") from error
    words = normalize(reference).split()
    counts = kaldialign.edit_distance(words, normalize(hypothesis).split())
    return WordErrors(len(words), counts["ins"], counts["del"], counts["sub"])


def digits_spelled_alike(text: str) -> str:
    """The normaliser of the digits-en recordings: people say OH for 0, the references write ZERO."""
    return " ".join("ZERO" if word == "OH" else word for word in text.upper().split())
