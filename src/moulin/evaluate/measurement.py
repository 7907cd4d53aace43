"""The figures of one run of one target at one load."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from moulin.audio.waveform import SAMPLE_RATE
from moulin.evaluate.connection import Record
from moulin.evaluate.latencies import Latencies, rounded
from moulin.evaluate.results.loads import LoadRun, UtteranceFigures
from moulin.evaluate.streaming_load import Load
from moulin.evaluate.target_usage import TargetUsage
from moulin.evaluate.targets.triton_statistics import TritonStatistics
from moulin.evaluate.wer import Normalizer, WordErrors, count_character_errors, count_word_errors

DISTURBED = 0.04
"""The share of the cores above which other processes disturb a run."""

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures of one run at `load` `unit` (48 streams, 8 workers, 5 requests_per_sec)."""

    target: str
    unit: str
    load: float
    seconds: float
    latency: Latencies
    """Times from when a chunk was due to its reply, of chunks that allow an encoder step, or of whole recordings."""
    final: Latencies
    """Times from the end of a recording to its final text."""
    first_text: Latencies
    """Times from the beginning of a recording to the first word of its text."""
    failures: tuple[str, ...]
    finished: int
    """Recordings that were recognised to the end."""
    audio_sec_a_sec: float
    """Seconds of audio a second, of the recordings that were answered within the window."""
    word_errors: WordErrors
    character_errors: WordErrors
    partials: int
    revised_words: int
    """Words that a partial result showed and a later one took back or changed; a word's growing end counts too."""
    usage: TargetUsage
    generator_cpu_sec: float
    generator_late_ms: float
    """The 95th percentile of how late the generator itself was."""
    cores: int
    requests: int = 0
    """Requests that the generator sent from the beginning of the run to its end, warm-up included."""
    statistics: TritonStatistics | None = None
    """Triton's own count of the same requests."""
    utterances: dict[str, UtteranceFigures] = field(default_factory=dict)
    attempts: int = 1
    """Runs until one was not disturbed, or the tries were used up."""

    @property
    def others_cpu_sec(self) -> float:
        """CPU seconds of other processes (and, in a virtual machine, of its host): almost none in a clean run."""
        return self.usage.machine_cpu_sec - (self.usage.server_cpu_sec or 0.0) - self.generator_cpu_sec

    @property
    def disturbed(self) -> bool:
        return self.usage.server_cpu_sec is not None and self.others_cpu_sec > DISTURBED * self.cores * self.seconds

    @property
    def answers(self) -> Latencies:
        """The latencies to which a limit applies: of chunks or, for a target that answers none, of recordings."""
        return self.latency if len(self.latency) else self.final

    @property
    def p95_ms(self) -> float:
        return self.answers.percentile(95)

    @property
    def late_p95_ms(self) -> float:
        """The 95th percentile within the last quarter alone, where a growing queue shows."""
        return self.answers.since(self.seconds * 3 / 4).percentile(95)

    def holds(self, p95_ms: float) -> bool:
        """Whether all was answered and the latency stayed under the limit to the end."""
        return not self.failures and max(self.p95_ms, self.late_p95_ms) < p95_ms

    def figures(self, *, brief: bool = False) -> LoadRun:
        """The figures of a report; `brief` leaves out those that only a plot needs."""
        load = int(self.load) if self.load == int(self.load) else self.load
        run = LoadRun(
            target=self.target,
            seconds=self.seconds,
            latency_ms=self.latency.percentiles(),
            final_latency_ms=self.final.percentiles(),
            failures=len(self.failures),
            wer=round(self.word_errors.rate, 4),
            server_cpu_sec=None if self.usage.server_cpu_sec is None else round(self.usage.server_cpu_sec, 2),
            generator_cpu_sec=round(self.generator_cpu_sec, 2),
            streams=load if self.unit == "streams" else None,
            workers=load if self.unit == "workers" else None,
            requests_per_sec=load if self.unit == "requests_per_sec" else None,
            last_quarter_p95_ms=rounded(self.late_p95_ms, 1),
            first_text_ms=self.first_text.percentiles(),
            chunks_measured=len(self.latency),
            audio_sec_a_sec=round(self.audio_sec_a_sec, 2),
            failure_examples=sorted(set(self.failures))[:_EXAMPLES],
            streams_finished=self.finished,
            word_errors=self.word_errors.errors,
            words=self.word_errors.words,
            insertions=self.word_errors.insertions,
            deletions=self.word_errors.deletions,
            substitutions=self.word_errors.substitutions,
            cer=round(self.character_errors.rate, 4),
            partials=self.partials,
            revised_words=self.revised_words,
            others_cpu_sec=round(self.others_cpu_sec, 2),
            server_processes_cpu_sec=[round(sec, 2) for sec in self.usage.processes_cpu_sec],
            generator_late_p95_ms=rounded(self.generator_late_ms, 2),
            disturbed=self.disturbed,
            attempts=self.attempts,
            server_memory_mib=round(self.usage.peak_memory_bytes / 2**20),
            requests_sent=self.requests,
            gpus=[gpu.rounded() for gpu in self.usage.gpus],
            triton=self.statistics.figures() if self.statistics else None,
        )
        if brief:
            return run
        return replace(
            run,
            latency_distribution_ms=self.latency.distribution(),
            final_distribution_ms=self.final.distribution(),
            timeline_ms=self.latency.timeline(self.seconds),
            utterances=dict(sorted(self.utterances.items())),
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests of a run, warm-up included, by the load generator's count and by Triton's own."""

    requests: int = 0
    statistics: TritonStatistics | None = None


def evaluate(
    target: str,
    unit: str,
    load: float,
    result: Load,
    usage: TargetUsage,
    normalize: Normalizer,
    *,
    in_process: bool = False,
    counts: Counts = Counts(),
) -> Measurement:
    """The figures of a run."""
    chunks = [pair for record in result.records for pair in _measured(record, result)]
    finals = [pair for record in result.records for pair in _final(record, result)]
    first_texts = [
        (record.begin, record.partials[0][0])
        for record in result.records
        if record.partials and result.first_sec <= record.begin < result.end_sec
    ]
    failures = [record.failure for record in result.records if record.failure is not None]
    # The end of a recording is measured separately; where it is also a measured chunk, it must not count twice.
    missing = {(id(record), index) for record in result.records for index in _unanswered(record, result)}
    failures += ["no reply in time"] * len(missing)
    words, characters = WordErrors(), WordErrors()
    finished = [record for record in result.records if record.text is not None]
    for record in finished:
        assert record.text is not None
        words += count_word_errors(record.clip.text, record.text, normalize=normalize)
        characters += count_character_errors(record.clip.text, record.text, normalize=normalize)
    generator_cpu = result.thread_cpu_sec if in_process else result.cpu_sec
    if in_process:
        usage = replace(usage, server_cpu_sec=result.cpu_sec - generator_cpu, processes_cpu_sec=())
    return Measurement(
        target=target,
        unit=unit,
        load=load,
        seconds=result.end_sec - result.first_sec,
        latency=_answered(chunks, result),
        final=_answered(finals, result),
        first_text=_answered(first_texts, result),
        failures=tuple(failures),
        finished=len(finished),
        audio_sec_a_sec=_audio_sec(finished, result) / (result.end_sec - result.first_sec),
        word_errors=words,
        character_errors=characters,
        partials=sum(len(record.partials) for record in finished),
        revised_words=sum(_revised(record) for record in finished),
        usage=usage,
        generator_cpu_sec=generator_cpu,
        generator_late_ms=float(np.percentile(result.lateness_sec, 95)) * 1e3 if result.lateness_sec else math.nan,
        cores=len(os.sched_getaffinity(0)),
        requests=counts.requests,
        statistics=counts.statistics,
        utterances=_by_utterance(result, normalize),
    )


def _measured(record: Record, load: Load) -> list[tuple[float, float]]:
    """(due, replied) of the measured chunks."""
    return [
        (due, replied)
        for due, replied, measured in zip(record.due, record.replied, record.measured, strict=True)
        if measured and load.first_sec <= due < load.end_sec
    ]


def _final(record: Record, load: Load) -> list[tuple[float, float]]:
    ended = load.first_sec <= record.due[-1] < load.end_sec and record.failure is None
    return [(record.due[-1], record.replied[-1])] if ended else []


def _unanswered(record: Record, load: Load) -> list[int]:
    """Pieces due within the window and never answered, of a stream that has not failed."""
    if record.failure is not None:
        return []
    last = len(record.due) - 1
    return [
        index
        for index, (due, replied) in enumerate(zip(record.due, record.replied, strict=True))
        if math.isnan(replied) and load.first_sec <= due < load.end_sec and (record.measured[index] or index == last)
    ]


def _answered(pairs: Sequence[tuple[float, float]], load: Load) -> Latencies:
    return Latencies.between([pair for pair in pairs if not math.isnan(pair[1])], load.first_sec)


def _audio_sec(finished: Sequence[Record], load: Load) -> float:
    """Seconds of audio of the recordings whose last reply came within the window."""
    return sum(
        record.clip.num_samples / SAMPLE_RATE
        for record in finished
        if load.first_sec <= record.replied[-1] < load.end_sec
    )


def _revised(record: Record) -> int:
    """Words of each partial that the next one does not begin with."""
    revised = 0
    texts = [text.split() for _, text in record.partials]
    for before, after in itertools.pairwise(texts):
        differing = (i for i, (old, new) in enumerate(zip(before, after, strict=False)) if old != new)
        same = next(differing, min(len(before), len(after)))
        revised += len(before) - same
    return revised


def _by_utterance(load: Load, normalize: Normalizer) -> dict[str, UtteranceFigures]:
    records: dict[str, list[Record]] = {}
    for record in load.records:
        if record.text is not None:
            records.setdefault(record.clip.id, []).append(record)
    return {name: _utterance(them, load, normalize) for name, them in records.items()}


def _utterance(records: Sequence[Record], load: Load, normalize: Normalizer) -> UtteranceFigures:
    """The figures of one recording."""
    errors = (count_word_errors(it.clip.text, it.text or "", normalize=normalize) for it in records)
    summed = sum(errors, WordErrors())
    return UtteranceFigures(
        len(records),
        summed.errors,
        summed.words,
        rounded(_mean_ms([pair for it in records for pair in _measured(it, load)]), 2),
        rounded(_mean_ms([pair for it in records for pair in _final(it, load)]), 2),
    )


def _mean_ms(pairs: Sequence[tuple[float, float]]) -> float:
    waits = [replied - due for due, replied in pairs if not math.isnan(replied)]
    return 1e3 * sum(waits) / len(waits) if waits else math.nan
