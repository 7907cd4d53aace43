"""Names that clients ask for by default, as the installed OpenAI package and others know them."""

from __future__ import annotations

from typing import get_args

import pytest
from openai.types import AudioModel

from moulin.gateway.model_names import NAME_PATTERNS, is_realtime_only, pattern_of


@pytest.mark.parametrize(
    "name",
    [
        *get_args(AudioModel),
        "gpt-live-transcribe",
        "gpt-realtime-whisper",
        "gpt-4o-mini-transcribe-2025-12-15",
        "gpt-5-transcribe-2027-01-01",
        "Whisper-1",
        "whisper-large-v3-turbo",
        "gpt-realtime",
        "gpt-4o-realtime-preview-2025-06-03",
    ],
)
def test_names_of_openais_kind(name: str) -> None:
    assert pattern_of(name) is not None


@pytest.mark.parametrize("name", [None, "", "gpt-4o", "gpt-5", "tts-1", "transcribe", "my-whisper", "transducer"])
def test_other_names(name: str | None) -> None:
    assert pattern_of(name) is None


def test_realtime_only() -> None:
    found = {name for name in (*get_args(AudioModel), "gpt-realtime") if is_realtime_only(name)}
    assert not found
    assert is_realtime_only("gpt-realtime-whisper")
    assert is_realtime_only("gpt-live-transcribe")
    assert not is_realtime_only(None)


def test_every_example_has_the_pattern_that_names_it() -> None:
    for pattern in NAME_PATTERNS:
        for example in pattern.examples.split(", "):
            if not example.startswith(("in the", "likewise")):
                assert pattern_of(example) is pattern
