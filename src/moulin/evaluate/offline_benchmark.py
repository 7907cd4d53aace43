"""Throughput of offline recognition, several targets in one run.

Every target is set up and warmed up with one whole pass first. Then the rounds go through all targets in turn, so
that whatever else the machine does meets all of them alike. The clock runs from the waveforms in memory to all the
texts: reading and resampling the files is left out, features, search and (through Triton) the transport are in.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import ModelSpec
from moulin.evaluate.results.offline import Throughput, UtteranceErrors
from moulin.evaluate.targets.registry import at_once
from moulin.evaluate.targets.target import ServerSettings
from moulin.evaluate.utterance import Utterance
from moulin.evaluate.wer import Normalizer, WordErrors, count_word_errors


@dataclass(frozen=True, slots=True)
class TargetResult:
    """One target's figures: seconds of each round for all the audio, and errors of the last round."""

    name: str
    seconds: tuple[float, ...]
    audio_sec: float
    word_errors: WordErrors
    utterances: dict[str, WordErrors] = field(default_factory=dict)
    """By recording, all its repetitions together."""

    @property
    def rtfx(self) -> float:
        """Audio seconds a second, in the median round."""
        return self.audio_sec / statistics.median(self.seconds)

    def figures(self) -> Throughput:
        return Throughput(
            name=self.name,
            seconds=[round(value, 4) for value in self.seconds],
            rtfx_median=round(self.rtfx, 1),
            rtfx_best=round(self.audio_sec / min(self.seconds), 1),
            rtfx_worst=round(self.audio_sec / max(self.seconds), 1),
            wer=round(self.word_errors.rate, 4),
            word_errors=self.word_errors.errors,
            words=self.word_errors.words,
            insertions=self.word_errors.insertions,
            deletions=self.word_errors.deletions,
            substitutions=self.word_errors.substitutions,
            utterances={name: UtteranceErrors(its.errors, its.words) for name, its in self.utterances.items()},
        )


def benchmark_offline(
    spec: ModelSpec,
    utterances: Sequence[Utterance],
    targets: Sequence[str],
    settings: ServerSettings,
    *,
    rounds: int,
    repeat: int,
    normalize: Normalizer,
    on_round: Callable[[int, list[TargetResult]], None] = lambda *_: None,
) -> list[TargetResult]:
    """Measure `targets` over `rounds` rounds of all the recordings, each taken `repeat` times.

    Every repetition has 30 ms more silence at its end: in life, too, lengths hardly repeat, and a runtime that plans
    for a length it has seen must not gain by it. `on_round` gets the number of each round and what there is so far.
    """
    count_word_errors("", "")  # without kaldialign it shall fail before the rounds, not after them
    recordings = [utterance.waveform() for utterance in utterances]
    waveforms = [np.pad(samples, (0, 480 * again)) for again in range(repeat) for samples in recordings]
    audio_sec = sum(len(waveform) for waveform in waveforms) / SAMPLE_RATE
    seconds: dict[str, list[float]] = {name: [] for name in targets}
    texts: dict[str, list[str]] = {}

    def result(name: str) -> TargetResult:
        by_utterance: dict[str, WordErrors] = {}
        for utterance, text in zip([*utterances] * repeat, texts[name], strict=True):
            errors = count_word_errors(utterance.text, text, normalize=normalize)
            key = utterance.id or utterance.audio.stem
            by_utterance[key] = by_utterance.get(key, WordErrors()) + errors
        total = sum(by_utterance.values(), WordErrors())
        return TargetResult(name, tuple(seconds[name]), audio_sec, total, by_utterance)

    with ExitStack() as stack:
        contenders = {name: stack.enter_context(at_once(name)(spec, settings)) for name in targets}
        for transcribe in contenders.values():
            transcribe(waveforms)
        for number in range(1, rounds + 1):
            for name, transcribe in contenders.items():
                started = time.perf_counter()
                texts[name] = transcribe(waveforms)
                seconds[name].append(time.perf_counter() - started)
            on_round(number, [result(name) for name in targets])
    return [result(name) for name in targets]
