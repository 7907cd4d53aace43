"""The n-grams of a language model as plain arrays, as files have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moulin.arrays import Floats, Ints32

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPECIAL = frozenset({BEGIN, END, UNKNOWN, "<UNK>"})
"""Words that stand for no text."""


@dataclass(frozen=True, slots=True)
class Level:
    """The n-grams of one order k."""

    words: Ints32
    """[M, k]: numbers of words."""
    log_probs: Floats
    """float32 [M], natural logarithms."""
    backoffs: Floats
    """float32 [M], natural logarithms; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class Ngrams:
    """All n-grams of a model. Word i is the i-th unigram."""

    words: Sequence[str]
    levels: Sequence[Level]
    """Of order 1, 2, and so on; the first has a row for each word, in their order."""

    @property
    def order(self) -> int:
        return len(self.levels)
