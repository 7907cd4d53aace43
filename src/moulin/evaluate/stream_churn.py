"""A test of a recognizer with streams that start, stop, vanish and lag at random, by the hundred thousand.

Nothing is paced: every turn gives each stream a piece of audio, of another length each turn, and steps the ready ones.
Some lag for a few turns and then send all missed audio; some are closed at any moment, before or after their end. A
sample is recognised again by another recognizer, which gets all of the audio at once. `ChurnReport.faults` has the
result of the checks.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import SAMPLE_RATE
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import StreamsFull
from moulin.evaluate.results.live_streams import ChurnRun, DifferingText
from moulin.evaluate.stream_crowd import Churn, Crowd, CrowdCounts, Sample
from moulin.evaluate.wer import WordErrors, count_character_errors
from moulin.streaming.stream import Stream

MAX_GROWTH_MIB = 64.0
"""Growth that is allowed to any kind of memory since the first quarter: allocators do not return all of it at once."""

_EXAMPLES = 20
Memory = Mapping[str, float]
"""MiB by holder, as `stream_engines.memory_in_use` names them."""


@dataclass(slots=True)
class ChurnReport:
    """The outcome of a churn."""

    churn: Churn
    crowd: CrowdCounts = field(default_factory=CrowdCounts)
    seconds: float = 0.0
    quarters: list[Memory] = field(default_factory=list)
    """The memory in use after each quarter of the streams."""
    errors: WordErrors = field(default_factory=WordErrors)
    """Characters of the samples, against those of the other recognizer."""
    differing: list[tuple[Sample, str]] = field(default_factory=list)
    """Samples whose text differs, with the other recognizer's text."""
    faults: list[str] = field(default_factory=list)
    """Reasons why the test failed; empty if it passed."""
    interrupted: bool = False

    def figures(self) -> ChurnRun:
        return ChurnRun(
            streams=self.churn.streams,
            open_at_once=self.churn.open_at_once,
            seed=self.churn.seed,
            seconds=round(self.seconds, 1),
            streams_a_sec=round(self.churn.streams / self.seconds) if self.seconds else None,
            ended=self.crowd.ended,
            vanished=self.crowd.vanished,
            steps=self.crowd.steps,
            chunks=self.crowd.chunks,
            characters=self.crowd.characters,
            quarters_mib=[{name: round(mib, 1) for name, mib in quarter.items()} for quarter in self.quarters],
            samples=len(self.crowd.samples),
            samples_differing=len(self.differing),
            sample_errors=self.errors.figures(),
            differing=[_differing(sample, expected) for sample, expected in self.differing[:_EXAMPLES]],
            faults=self.faults,
        )


def _differing(sample: Sample, expected: str) -> DifferingText:
    seconds, chosen = round(len(sample.samples) / SAMPLE_RATE, 2), sample.options.decoding
    searched = chosen.method, chosen.beam, chosen.blank_penalty, chosen.temperature, chosen.blank_skip
    return DifferingText(expected, sample.text, seconds, sample.finished, *searched)


def run_churn(
    recognizer: StreamRecognizer,
    plain: StreamRecognizer,
    audio: NDArray[np.int16],
    churn: Churn,
    *,
    memory: Callable[[], Memory] = dict,
    max_differing: float = 0.0,
    on_quarter: Callable[[int], None] = lambda _: None,
) -> ChurnReport:
    """Run `churn` on `recognizer`, which may have no open stream, with pieces of `audio` int16 [n].

    Samples are compared with `plain`; `max_differing` is the share of their characters that may differ. `memory` and
    `on_quarter` are called after each quarter.
    """
    report = ChurnReport(churn)
    crowd = Crowd(recognizer, audio, churn, report.crowd)
    begin = time.perf_counter()
    try:
        for quarter in (1, 2, 3, 4):
            crowd.go_on(until_gone=churn.streams * quarter // 4)
            gc.collect()
            report.quarters.append(memory())
            on_quarter(quarter)
    except StreamsFull as full:
        report.faults.append(f"Expected a slot for another stream beside {crowd.num_open}, got: {full}")
        crowd.close()
    except KeyboardInterrupt:
        report.interrupted = True  # a stream may be half open: the recognizer cannot be checked any more
    report.seconds = time.perf_counter() - begin
    report.faults += report.crowd.faults
    report.faults += _growth(report.quarters)
    if report.interrupted:
        return report
    report.faults += _lost_slots(recognizer)
    try:
        _compare(report, plain)
    except KeyboardInterrupt:
        report.interrupted = True
    if report.errors.errors > max_differing * report.errors.words:
        report.faults.append(
            f"Expected at most {max_differing:.2%} of characters to differ, got {report.errors.rate:.2%}, "
            f"in {len(report.differing)} of {len(report.crowd.samples)} streams"
        )
    return report


def _lost_slots(recognizer: StreamRecognizer) -> Iterator[str]:
    """Faults where a stream is left open, or other than all slots can be acquired."""
    if recognizer.num_open:
        yield f"Expected no stream to be open, got {recognizer.num_open}"
    streams: list[Stream] = []
    try:
        while len(streams) <= recognizer.limits.capacity:
            streams.append(recognizer.open())
    except StreamsFull:
        pass
    if len(streams) != recognizer.limits.capacity:
        yield f"Expected {recognizer.limits.capacity} streams to find a slot, got {len(streams)}"
    for stream in streams:
        recognizer.close(stream)


def _growth(quarters: Sequence[Memory]) -> Iterator[str]:
    for name, first in quarters[0].items() if quarters else ():
        grown = max(quarter[name] for quarter in quarters) - first
        if grown > MAX_GROWTH_MIB:
            yield f"Expected {name} to stay at {first:.0f} MiB, got {grown:.0f} MiB more"


def _compare(report: ChurnReport, plain: StreamRecognizer) -> None:
    """Recognise the samples again, as many as `plain` has room for at a time."""
    samples = iter(report.crowd.samples)
    while group := list(itertools.islice(samples, plain.limits.capacity)):
        for sample, text in zip(group, hear_again(plain, group), strict=True):
            report.errors += count_character_errors(text, sample.text, normalize=str)
            if text != sample.text:
                report.differing.append((sample, text))


def hear_again(recognizer: StreamRecognizer, samples: Sequence[Sample]) -> list[str]:
    """The texts of `samples`, each as far as it was decoded, when all of its audio comes at once."""
    streams = [recognizer.open(sample.options) for sample in samples]
    for stream, sample in zip(streams, samples, strict=True):
        recognizer.accept(stream, sample.samples)  # type: ignore[arg-type]
        if sample.finished:
            recognizer.finish(stream)
    max_batch = recognizer.limits.max_batch
    for num_done in itertools.count():
        ready = [
            stream
            for stream, sample in zip(streams, samples, strict=True)
            if (sample.steps is None or num_done < sample.steps) and recognizer.is_ready(stream)
        ]
        if not ready:
            break
        for at in range(0, len(ready), max_batch):
            recognizer.step(ready[at : at + max_batch])
    texts = [recognizer.text(stream) for stream in streams]
    for stream in streams:
        recognizer.close(stream)
    return texts
