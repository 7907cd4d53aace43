"""The Open ASR Leaderboard's normalisation of English texts.

It began as OpenAI's for Whisper, which the package whisper-normalizer holds, and has since changed rules of its own
(huggingface/open_asr_leaderboard, normalizer/normalizer.py of August 2026): more fillers, other contractions, words
that count as one, letters that are spelled. They are here. What is not here is its table of 152 spellings of names
(alan as allen): for these the clone's own file can be loaded.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

from moulin.errors import EngineError, OptionsError
from moulin.extras import install_hint

FILLERS = "hmm mm mhm mmm uh um ah aha ahh ahm eh ehehe em hm huh hum mhum uhm umm uhuh"
"""Words that are left out."""

_WITH_IS = "it he she what that who here there how when where why this"
"""Words whose 's stands for is; behind others it is a genitive."""
_NOT_REPLACED = (r"\bsorta\b", r"\bkinda\b", r"\bcause\b", r"\bdunno\b", r"'s\b")
"""Whisper's contractions that the leaderboard leaves as they are."""
_ONE_WORD = {
    **{f"{first} fi": f"{first}fi" for first in ("wi", "hi", "lo", "sci")},
    **{f"e {second}": f"e{second}" for second in ("mail", "book", "commerce")},
    "et cetera": "etc",
    "al right": "alright",
    "all right": "alright",
    "how ever": "however",
    "x ray": "xray",
    "t shirt": "tshirt",
    "a m": "am",
    "p m": "pm",
    "o k": "okay",
}
_SPELLINGS = {
    **{"ok": "okay", "kay": "okay", "mm": "hmm", "etcetera": "etc", "flyer": "flier"},
    **{"archaeology": "archeology", "archaeological": "archeological"},
    **{"travelogue": "travelog", "travelogues": "travelogs"},
    **{"cancellation": "cancelation", "cancellations": "cancelations"},
    **{"pummelled": "pummeled", "pummelling": "pummeling", "snowploughs": "snowplows"},
}
"""Spellings that differ from whisper-normalizer's table, of which some rows are damaged."""
_NOT_SPELLED = ("travelog", "travelogs", "archeological", "cancelation", "cancelations", "flyer / flier")


@dataclass(frozen=True, slots=True)
class LeaderboardNormalizer:
    """A text to words with one space between them, by `normalize`; `description` is a line for a report."""

    normalize: Callable[[str], str]
    description: str

    def __call__(self, text: str) -> str:
        return " ".join(self.normalize(text).split())


def leaderboard_normalizer(clone: Path | None = None) -> LeaderboardNormalizer:
    """The normaliser by the package whisper-normalizer and the leaderboard's rules; with `clone`, a clone of
    huggingface/open_asr_leaderboard, its own code, which is run. Raises EngineError and OptionsError."""
    if clone is not None:
        return LeaderboardNormalizer(_of_clone(clone), f"the Open ASR Leaderboard's own, in {clone}")
    try:
        from whisper_normalizer import english
    except ModuleNotFoundError as error:
        raise EngineError(
            "The leaderboard's normalisation needs whisper-normalizer, which is not installed",
            hint=install_hint("leaderboard"),
        ) from error
    return LeaderboardNormalizer(
        _with_rules(english.EnglishTextNormalizer()),
        "whisper-normalizer with the Open ASR Leaderboard's rules of August 2026, without its table of names",
    )


def _with_rules(whisper: Any) -> Callable[[str], str]:
    """Whisper's normaliser `whisper` with the leaderboard's rules."""
    whisper.ignore_patterns = rf"\b({'|'.join(FILLERS.split())})\b"
    for pattern in _NOT_REPLACED:
        whisper.replacers.pop(pattern, None)
    contracted = {rf"\b({'|'.join(_WITH_IS.split())})'s\b": r"\1 is"}
    at = list(whisper.replacers).index(r"'d\b")
    rules = list(whisper.replacers.items())
    whisper.replacers = dict([*rules[:at], *contracted.items(), *rules[at:]])
    spellings = whisper.standardize_spellings
    spellings.mapping = {word: to for word, to in spellings.mapping.items() if word not in _NOT_SPELLED} | _SPELLINGS
    numbers = whisper.standardize_numbers
    whisper.standardize_numbers = lambda text: numbers(_joined_words(text))
    whisper.standardize_spellings = lambda text: _joined_letters(spellings(text))
    return lambda text: str(whisper(text))


def _joined_words(text: str) -> str:
    for words, one in _ONE_WORD.items():
        text = re.sub(r"\b" + words.replace(" ", r"\s+") + r"\b", one, text)
    return text


def _joined_letters(text: str) -> str:
    """Runs of single letters and digits as one word; one with "a" or "i" in it from three on."""
    found: list[str] = []
    for single, run in groupby(text.split(), key=lambda word: len(word) == 1 and word.isalnum()):
        words = list(run)
        least = 3 if {"a", "i"} & set(words) else 2
        found += ["".join(words)] if single and len(words) >= least else words
    return " ".join(found)


def _of_clone(clone: Path) -> Callable[[str], str]:
    folder = clone / "normalizer"
    if not (folder / "normalizer.py").is_file():
        raise OptionsError(
            f"Expected a clone of huggingface/open_asr_leaderboard, got {clone}", hint="it has normalizer/normalizer.py"
        )
    # Its __init__.py names every model of the leaderboard; only the two modules are needed.
    package = ModuleType("open_asr_leaderboard_normalizer")
    package.__path__ = [str(folder)]
    sys.modules[package.__name__] = package
    found = importlib.import_module(f"{package.__name__}.normalizer").EnglishTextNormalizer()
    return lambda text: str(found(text))
