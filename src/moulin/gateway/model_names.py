"""Names of models that programs written for OpenAI's API, and for services like it, ask for by default.

OpenAI renames its models about twice a year, so the names are patterns. Each stands for the gateway's default model.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class NamePattern:
    """`glob` matches names in lower case. Clients of a `realtime_only` name commit by themselves."""

    glob: str
    examples: str
    realtime_only: bool = False


NAME_PATTERNS = (
    NamePattern("gpt-live-transcribe*", "gpt-live-transcribe", realtime_only=True),
    NamePattern("gpt-realtime-whisper*", "gpt-realtime-whisper", realtime_only=True),
    NamePattern("gpt-transcribe*", "gpt-transcribe"),
    NamePattern("gpt-*-transcribe*", "gpt-4o-transcribe, gpt-4o-mini-transcribe-2025-12-15, gpt-4o-transcribe-diarize"),
    NamePattern("whisper-*", "whisper-1, whisper-large-v3-turbo"),
    NamePattern("openai/whisper-*", "openai/whisper-large-v3"),
    NamePattern("gpt-realtime*", "gpt-realtime, in the address of a realtime session"),
    NamePattern("gpt-*-realtime*", "gpt-4o-realtime-preview, likewise"),
)
"""The first that matches counts."""


def pattern_of(name: str | None) -> NamePattern | None:
    """The pattern that `name` matches; None for another name, which is one of the server's own or unknown."""
    name = (name or "").lower()
    return next((pattern for pattern in NAME_PATTERNS if fnmatchcase(name, pattern.glob)), None)


def is_realtime_only(name: str | None) -> bool:
    """Whether OpenAI offers `name` only in realtime sessions, without turn detection."""
    pattern = pattern_of(name)
    return pattern is not None and pattern.realtime_only
