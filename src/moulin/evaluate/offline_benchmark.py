"""Throughput of offline recognition, several targets in one run.

Every target is set up and warmed up with one whole pass first. Then the rounds go through all targets in turn, so
that other load on the machine affects all of them alike. The clock runs from the waveforms in memory to all the
texts: reading and resampling the files is left out, features, search and (through Triton) the transport are in. The
CPU time is that of this process and of those that it started, in the same span: other load hardly changes it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import ModelSpec
from moulin.evaluate.process_usage import cpu_sec_by_process
from moulin.evaluate.results.offline import Throughput, UtteranceErrors
from moulin.evaluate.targets.registry import at_once
from moulin.evaluate.targets.target import ServerSettings
from moulin.evaluate.utterance import Utterance
from moulin.evaluate.wer import Normalizer, WordErrors, count_word_errors


@dataclass(frozen=True, slots=True)
class Rounds:
    """All targets so far, on `audio_sec` of audio a round; word errors are those of the last round."""

    audio_sec: float
    targets: Sequence[Throughput]


def benchmark_offline(
    spec: ModelSpec,
    utterances: Sequence[Utterance],
    targets: Sequence[str],
    settings: ServerSettings,
    normalize: Normalizer,
    *,
    rounds: int,
    repeat: int = 1,
) -> Generator[Rounds, None, None]:
    """Measure `targets` over `rounds` rounds of all the recordings, each taken `repeat` times; yields after each round.

    Every repetition has 30 ms more silence at its end: in life, too, lengths hardly repeat, and a runtime that plans
    for a length it has seen must not gain by it.
    """
    count_word_errors("", "")  # without kaldialign it shall fail before the rounds, not after them
    recordings = [utterance.waveform() for utterance in utterances]
    waveforms = [np.pad(samples, (0, 480 * again)) for again in range(repeat) for samples in recordings]
    audio_sec = sum(map(len, waveforms)) / SAMPLE_RATE
    seconds: dict[str, list[float]] = {name: [] for name in targets}
    cpu_sec: dict[str, list[float]] = {name: [] for name in targets}
    texts: dict[str, list[str]] = {}
    with ExitStack() as stack:
        contenders = {name: stack.enter_context(at_once(name)(spec, settings)) for name in targets}
        for transcribe in contenders.values():
            transcribe(waveforms)
        for _ in range(rounds):
            for name, transcribe in contenders.items():
                used, started = _cpu_sec(), time.perf_counter()
                texts[name] = transcribe(waveforms)
                seconds[name].append(time.perf_counter() - started)
                cpu_sec[name].append(_cpu_sec() - used)
            errors = {name: _errors([*utterances] * repeat, texts[name], normalize) for name in targets}
            yield Rounds(
                audio_sec,
                [throughput(name, audio_sec, seconds[name], errors[name], cpu_sec[name]) for name in targets],
            )


def _cpu_sec() -> float:
    """CPU seconds so far of this process and of its living descendants."""
    pid = os.getpid()
    others = sum(used for process, used in cpu_sec_by_process(pid).items() if process != pid)
    return time.process_time() + others  # Linux counts other processes in hundredths of a second


def throughput(
    name: str,
    audio_sec: float,
    seconds: Sequence[float],
    errors: dict[str, WordErrors],
    cpu_sec: Sequence[float] | None = None,
) -> Throughput:
    """The figures of rounds of `audio_sec` that took `seconds`, and `cpu_sec` of CPU time, each; `errors` by recording,
    repetitions together."""
    total = sum(errors.values(), WordErrors())
    return Throughput(
        name=name,
        seconds=[round(value, 4) for value in seconds],
        rtfx_median=round(audio_sec / statistics.median(seconds), 1),
        rtfx_best=round(audio_sec / min(seconds), 1),
        rtfx_worst=round(audio_sec / max(seconds), 1),
        wer=round(total.rate, 4),
        word_errors=total.errors,
        words=total.words,
        insertions=total.insertions,
        deletions=total.deletions,
        substitutions=total.substitutions,
        cpu_sec=[round(value, 4) for value in cpu_sec] if cpu_sec is not None else None,
        utterances={recording: UtteranceErrors(its.errors, its.words) for recording, its in errors.items()},
    )


def _errors(utterances: Sequence[Utterance], texts: Sequence[str], normalize: Normalizer) -> dict[str, WordErrors]:
    found: dict[str, WordErrors] = {}
    for utterance, text in zip(utterances, texts, strict=True):
        key = utterance.id or utterance.audio.stem
        found[key] = found.get(key, WordErrors()) + count_word_errors(utterance.text, text, normalize=normalize)
    return found
