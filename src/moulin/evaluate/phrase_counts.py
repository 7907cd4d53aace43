"""How often phrases were said, and heard where they were: what hotwords find, and what they invent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from moulin.evaluate.wer import Normalizer, Pair, align_words


@dataclass(frozen=True, slots=True)
class PhraseCounts:
    """Occurrences of phrases in references and transcripts; add them up over recordings."""

    said: int = 0
    found: int = 0
    """Of those that were said, the ones that were heard in the same place."""
    invented: int = 0
    """Heard, and not said there."""

    @classmethod
    def of(cls, said: str, heard: str, phrases: Sequence[str], normalize: Normalizer) -> Self:
        """Of one recording. Phrases are found as whole words, once they are normalised like the texts."""
        pairs = align_words(said, heard, normalize=normalize)
        counts = cls()
        for words in {tuple(normalize(phrase).split()) for phrase in phrases} - {()}:
            in_said, in_heard = (_places(pairs, side, words) for side in (0, 1))
            found = len(in_said & in_heard)
            counts += cls(len(in_said), found, len(in_heard) - found)
        return counts

    def __add__(self, other: PhraseCounts) -> Self:
        return type(self)(self.said + other.said, self.found + other.found, self.invented + other.invented)

    @property
    def recall(self) -> float | None:
        """The share of phrases said that were found; None where none was said."""
        return self.found / self.said if self.said else None


def _places(pairs: Sequence[Pair], side: int, words: tuple[str, ...]) -> set[int]:
    """The pairs in which occurrences of `words` begin, on one side of an alignment."""
    there = [(at, word) for at, pair in enumerate(pairs) if (word := pair[side]) is not None]
    spelt = [word for _, word in there]
    return {
        there[begin][0]
        for begin in range(len(spelt) - len(words) + 1)
        if tuple(spelt[begin : begin + len(words)]) == words
    }
