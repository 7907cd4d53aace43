"""OpenAI's `prompt` as hotwords, where it is a list of words or phrases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from moulin.decoding.hotwords import MOST_CHARS, MOST_HOTWORDS

_MOST_WORDS = 5
_BETWEEN = re.compile(r"[,;\n，、；]")
_ENDS_A_SENTENCE = re.compile(r"[.!?。！？](\s|$)")


def prompt_words(prompt: str | None) -> list[str]:
    """The words and phrases that `prompt` lists: with commas, semicolons or line breaks between, none longer than five
    words, and no sentence. Of other prompts, and of none, nothing: a transducer cannot go on from a text."""
    found = [" ".join(part.split()) for part in _BETWEEN.split(prompt or "")]
    found = [part for part in found if part]
    if len(found) > MOST_HOTWORDS or any(map(_is_prose, found)):
        return []
    return found


def spoken_hotwords(keywords: Sequence[str], prompt: str | None) -> list[str | dict[str, Any]]:
    """`hotwords` of a request: the keywords, and the words of a prompt. A prompt is a hint that clients send to every
    model, so what this one cannot spell of it is left out."""
    words: list[str | dict[str, Any]] = list(dict.fromkeys(keywords))
    hints = [word for word in dict.fromkeys(prompt_words(prompt)) if word not in words]
    return words + [{"phrase": word, "optional": True} for word in hints[: max(MOST_HOTWORDS - len(words), 0)]]


def _is_prose(part: str) -> bool:
    return len(part) > MOST_CHARS or len(part.split()) > _MOST_WORDS or bool(_ENDS_A_SENTENCE.search(part))
