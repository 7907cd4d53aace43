"""What became of a recording: its transcript, or the error in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moulin.audio.source import AudioSource
from moulin.errors import MoulinError
from moulin.transcript import Transcript

OnProgress = Callable[[AudioSource, float], None]
"""A callback, called from any thread with the seconds of a recording transcribed so far."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A recording and its transcript, or the error in its place."""

    source: AudioSource
    result: Transcript | MoulinError


def unheard(_source: AudioSource, _seconds: float) -> None:
    """No progress is shown."""
