"""Prompts that list words, and prompts that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.decoding.options import DecodingOptions
from moulin.gateway.prompt_words import prompt_words, spoken_hotwords


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("ZyntriQix, Digique Plus, CynapseFive", ["ZyntriQix", "Digique Plus", "CynapseFive"]),
        ("nvidia", ["nvidia"]),
        ("open  ai;\nmoulin\n", ["open ai", "moulin"]),
        ("你好，世界、天气", ["你好", "世界", "天气"]),
        ("Node.js, .NET, U.S. Steel, a 3.5 model", []),  # "U.S. " may end a sentence
        ("Node.js, .NET, a 3.5 model", ["Node.js", ".NET", "a 3.5 model"]),
        ("Hello, welcome to my lecture.", []),
        ("The transcript is about OpenAI which makes technology", []),
        ("Umm, let me think like, hmm... Okay, here's what I'm, like, thinking.", []),
        ("x" * 101, []),
        (", ".join(map(str, range(1001))), []),
        (" , ;", []),
        ("", []),
        (None, []),
    ],
)
def test_prompts(prompt: str | None, wanted: list[str]) -> None:
    assert prompt_words(prompt) == wanted


@given(st.text(max_size=500))
def test_whatever_is_taken_is_valid(prompt: str) -> None:
    DecodingOptions(hotwords=tuple(prompt_words(prompt)))  # type: ignore[arg-type]


def test_a_prompt_is_a_hint_beside_keywords() -> None:
    hint = [{"phrase": "b", "optional": True}]
    assert spoken_hotwords(["a", "a"], "b, a, b") == ["a", *hint]
    assert spoken_hotwords([], None) == []
    many = [f"k{number}" for number in range(999)]
    assert spoken_hotwords(many, "b, c") == [*many, *hint]
