"""Accuracy of a target: every recording once, its transcript compared with its reference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import AudioError
from moulin.evaluate.connection import Record
from moulin.evaluate.request_load import run_once
from moulin.evaluate.results.accuracy import TargetAccuracy, UtteranceAccuracy
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.target import RunningTarget
from moulin.evaluate.utterance import Utterance
from moulin.evaluate.wer import Normalizer, Pair, WordErrors, align_words, count_character_errors, count_word_errors

_BLOCK_SEC = 1800.0
"""Audio that is in memory at a time."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One recording: reference and transcript, normalised, or the reason for a failure."""

    id: str
    said: str
    heard: str
    audio_sec: float
    words: WordErrors
    characters: WordErrors
    failure: str | None = None

    def alignment(self) -> list[Pair]:
        return align_words(self.said, self.heard, normalize=str)

    def figures(self) -> UtteranceAccuracy:
        return UtteranceAccuracy(
            id=self.id,
            said=self.said,
            heard=self.heard,
            audio_sec=round(self.audio_sec, 3),
            errors=self.words.errors,
            words=self.words.words,
            insertions=self.words.insertions,
            deletions=self.words.deletions,
            substitutions=self.words.substitutions,
            character_errors=self.characters.errors,
            characters=self.characters.words,
            failure=self.failure,
        )


@dataclass(slots=True)
class Accuracy:
    """One target's recordings so far. Failed ones are counted, and are not in the rates."""

    target: str
    scored: list[Scored] = field(default_factory=list)
    seconds: float = 0.0
    """Wall time, reading the audio not included."""

    @property
    def answered(self) -> list[Scored]:
        return [it for it in self.scored if it.failure is None]

    @property
    def failed(self) -> list[Scored]:
        return [it for it in self.scored if it.failure is not None]

    @property
    def words(self) -> WordErrors:
        return sum((it.words for it in self.answered), WordErrors())

    @property
    def characters(self) -> WordErrors:
        return sum((it.characters for it in self.answered), WordErrors())

    @property
    def sentence_errors(self) -> int:
        return sum(it.words.errors > 0 for it in self.answered)

    @property
    def audio_sec(self) -> float:
        return sum(it.audio_sec for it in self.answered)

    def figures(self) -> TargetAccuracy:
        return TargetAccuracy(
            target=self.target,
            recordings=len(self.scored),
            failures=len(self.failed),
            failure_examples=sorted({it.failure for it in self.failed if it.failure})[:5],
            wer=self.words.figures(),
            cer=self.characters.figures(),
            sentence_errors=self.sentence_errors,
            audio_sec=round(self.audio_sec, 2),
            seconds=round(self.seconds, 2),
            rtfx=round(self.audio_sec / self.seconds, 1) if self.seconds else None,
            utterances=[it.figures() for it in sorted(self.scored, key=lambda it: it.id)],
        )


Cut = Callable[[Sequence[Utterance]], list[Clip]]
"""Recordings to clips, whole or in chunks."""


def measure_accuracy(
    into: Accuracy,
    running: RunningTarget,
    utterances: Sequence[Utterance],
    cut: Cut,
    normalize: Normalizer,
    *,
    workers: int,
    on_scored: Callable[[Scored], None] = lambda _: None,
) -> None:
    """Send every utterance once, `workers` at a time, and score the texts. Interrupted, `into` has those so far."""

    def keep(record: Record) -> None:
        into.scored.append(score(record, normalize))
        on_scored(into.scored[-1])

    for clips, unreadable in _blocks(utterances, cut):
        for utterance, why in unreadable.items():
            into.scored.append(Scored(utterance, "", "", 0.0, WordErrors(), WordErrors(), why))
            on_scored(into.scored[-1])
        started = time.perf_counter()
        try:
            if clips:
                asyncio.run(_send(running, clips, workers, keep))
        finally:
            into.seconds += time.perf_counter() - started


def score(record: Record, normalize: Normalizer) -> Scored:
    said, heard = record.clip.text, record.text or ""
    return Scored(
        record.clip.id,
        normalize(said),
        normalize(heard),
        record.clip.num_samples / SAMPLE_RATE,
        count_word_errors(said, heard, normalize=normalize),
        count_character_errors(said, heard, normalize=normalize),
        record.failure,
    )


async def _send(running: RunningTarget, clips: Sequence[Clip], workers: int, keep: Callable[[Record], None]) -> None:
    connection = running.connect(clips, 0)
    try:
        await run_once(connection, clips, workers, on_end=keep)
    finally:
        await connection.close()


def _blocks(utterances: Sequence[Utterance], cut: Cut) -> Iterator[tuple[list[Clip], Mapping[str, str]]]:
    """Clips of half an hour together, and the ids of those that cannot be read with the reason."""
    clips: list[Clip] = []
    unreadable: dict[str, str] = {}
    for utterance in utterances:
        try:
            clips += cut([utterance])
        except AudioError as error:
            unreadable[utterance.id] = error.message
        if sum(clip.num_samples for clip in clips) >= _BLOCK_SEC * SAMPLE_RATE:
            yield clips, unreadable
            clips, unreadable = [], {}
    if clips or unreadable:
        yield clips, unreadable
