"""Normalisation of both texts before they are compared; every result names it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from moulin.errors import OptionsError


def _as_it_is(text: str) -> str:
    return text


def _without_punctuation(text: str) -> str:
    """NFKC, upper case; letters, marks and digits stay, and an apostrophe within a word."""
    text = unicodedata.normalize("NFKC", text).upper().replace("’", "'")
    kept = [
        character
        if unicodedata.category(character)[0] in "LMN" or (character == "'" and _within_word(text, position))
        else " "
        for position, character in enumerate(text)
    ]
    return "".join(kept)


def _within_word(text: str, position: int) -> bool:
    return text[position - 1 : position].isalnum() and text[position + 1 : position + 2].isalnum()


_FORMS: Mapping[str, tuple[Callable[[str], str], str]] = {
    "none": (_as_it_is, "texts as they are"),
    "case": (str.upper, "upper case"),
    "basic": (_without_punctuation, "Unicode NFKC, upper case, no punctuation but apostrophes within words"),
}
NORMALIZERS = tuple(_FORMS)


@dataclass(frozen=True, slots=True)
class TextNormalizer:
    """Normalises a text to words with one space between them. `alike` maps words to those that they count as:
    {"OH": "ZERO"}."""

    name: str = "basic"
    alike: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in _FORMS:
            raise OptionsError(f"There is no normalizer {self.name!r}", hint=f"they are {', '.join(_FORMS)}")

    def __call__(self, text: str) -> str:
        words = _FORMS[self.name][0](text).split()
        return " ".join(self.alike.get(word, word) for word in words)

    @property
    def description(self) -> str:
        """A line for a report."""
        pairs = [f"{word} counts as {other}" for word, other in self.alike.items()]
        return ", ".join([_FORMS[self.name][1], *pairs])


def parse_alike(pairs: Sequence[str], normalizer: str) -> dict[str, str]:
    """WORD=OTHER of the command line. Raises OptionsError."""
    alike = {}
    for pair in pairs:
        word, _, other = pair.partition("=")
        if len(word.split()) != 1 or len(other.split()) != 1:
            raise OptionsError(f"Expected WORD=OTHER for --alike, got {pair!r}", hint="for example --alike OH=ZERO")
        plain = TextNormalizer(normalizer)
        alike[plain(word)] = plain(other)
    return alike
