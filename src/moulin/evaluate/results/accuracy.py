"""Figures of `moulin bench accuracy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moulin.evaluate.results.setup import Data
from moulin.evaluate.wer import ErrorRate


@dataclass(frozen=True, slots=True)
class UtteranceAccuracy:
    """One recording: the reference and the transcript, normalised, and the errors; or why there is no transcript."""

    id: str
    said: str
    heard: str
    audio_sec: float
    errors: int
    words: int
    insertions: int
    deletions: int
    substitutions: int
    character_errors: int
    characters: int
    failure: str | None


@dataclass(frozen=True, slots=True)
class TargetAccuracy:
    """One target; recordings that failed are in no rate."""

    target: str
    recordings: int
    failures: int
    failure_examples: Sequence[str]
    wer: ErrorRate
    cer: ErrorRate
    sentence_errors: int
    """Recordings with errors."""
    audio_sec: float
    seconds: float
    rtfx: float | None
    utterances: Sequence[UtteranceAccuracy]


@dataclass(frozen=True, slots=True)
class AccuracyFigures:
    kind: str
    accuracy: Sequence[TargetAccuracy]
    data: Data | None = None
    normalizer: str | None = None
    decoding: Mapping[str, str | int] | None = None
    interrupted: bool = False
