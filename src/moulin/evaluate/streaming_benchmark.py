"""Latency of real-time streams, at a given number of them."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import OnnxModelSpec
from moulin.evaluate.process_usage import cpu_sec, machine_cpu_sec, memory_bytes
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.streaming_load import Load, StreamRecord, run_load
from moulin.evaluate.streaming_targets import RunningTarget, ServerSettings, target
from moulin.evaluate.wer import Normalizer, WordErrors, count_word_errors

WARMUP_SEC = 4.0

DISTURBED = 0.04
"""A run in which others took more than this share of the cores says little."""

_TRIES = 3
_PERCENTILES = (50, 90, 95, 99, 100)


@dataclass(frozen=True, slots=True)
class Pace:
    """How the load is run: `seconds` are measured, after a warm-up that is not. `seed` decides the lines' phases."""

    chunk_samples: int
    seconds: float
    seed: int = 0
    warmup_sec: float = WARMUP_SEC


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures of one run. Latencies in milliseconds, by percentile (100: the worst)."""

    target: str
    streams: int
    seconds: float
    latency_ms: dict[int, float]
    """From when a chunk was due to its reply, of chunks that allow an encoder step."""
    late_p95_ms: float
    """The 95th percentile within the last quarter alone: of a queue that grows it is the largest."""
    final_ms: dict[int, float]
    """From the end of a recording to its final text."""
    chunks: int
    failures: tuple[str, ...]
    streams_finished: int
    word_errors: WordErrors
    server_cpu_sec: float
    generator_cpu_sec: float
    others_cpu_sec: float
    """What other processes took (and, in a virtual machine, its host): of a clean run it is next to nothing."""
    generator_late_ms: float
    """The 95th percentile of how late the generator itself was."""
    server_memory_mib: float
    cores: int
    attempts: int = 1
    """Runs that it took until one was not disturbed (or all were)."""

    @property
    def disturbed(self) -> bool:
        return self.others_cpu_sec > DISTURBED * self.cores * self.seconds

    @property
    def p95_ms(self) -> float:
        return self.latency_ms[95]

    def holds(self, p95_ms: float) -> bool:
        """Whether every stream was answered and the latency stayed under the limit to the end."""
        return not self.failures and max(self.p95_ms, self.late_p95_ms) < p95_ms

    def to_dict(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "streams": self.streams,
            "seconds": self.seconds,
            "latency_ms": _named(self.latency_ms),
            "last_quarter_p95_ms": round(self.late_p95_ms, 1),
            "final_latency_ms": _named(self.final_ms),
            "chunks_measured": self.chunks,
            "audio_sec_a_sec": self.streams,
            "failures": len(self.failures),
            "failure_examples": sorted(set(self.failures))[:5],
            "streams_finished": self.streams_finished,
            "wer": round(self.word_errors.rate, 4),
            "word_errors": self.word_errors.errors,
            "words": self.word_errors.words,
            "server_cpu_sec": round(self.server_cpu_sec, 2),
            "generator_cpu_sec": round(self.generator_cpu_sec, 2),
            "others_cpu_sec": round(self.others_cpu_sec, 2),
            "generator_late_p95_ms": round(self.generator_late_ms, 2),
            "disturbed": self.disturbed,
            "attempts": self.attempts,
            "server_memory_mib": round(self.server_memory_mib),
        }


def measure(
    name: str,
    spec: OnnxModelSpec,
    settings: ServerSettings,
    clips: Sequence[Clip],
    streams: int,
    pace: Pace,
    normalize: Normalizer,
) -> Measurement:
    """Start the target called `name`, run `streams` streams against it, and stop it: a fresh server for each run.

    What others disturbed is run again, up to three times in all.
    """
    attempt = 0
    while True:
        attempt += 1
        with target(name)(spec, settings) as running:
            run = measure_running(name, running, clips, streams, pace, normalize)
            measurement = replace(asyncio.run(run), attempts=attempt)
        if attempt == _TRIES or not measurement.disturbed:
            return measurement


async def measure_running(
    name: str, running: RunningTarget, clips: Sequence[Clip], streams: int, pace: Pace, normalize: Normalizer
) -> Measurement:
    opened, closed = asyncio.Event(), asyncio.Event()

    async def cpu_used() -> tuple[float, float]:
        await opened.wait()
        server, machine = cpu_sec(running.pid), machine_cpu_sec()
        await closed.wait()
        return cpu_sec(running.pid) - server, machine_cpu_sec() - machine

    connection = running.connect(clips)
    cpu = asyncio.create_task(cpu_used())
    try:
        load = await run_load(
            connection,
            clips,
            streams=streams,
            seconds=pace.seconds,
            warmup_sec=pace.warmup_sec,
            chunk_sec=pace.chunk_samples / SAMPLE_RATE,
            seed=pace.seed,
            window_opened=opened,
            window_closed=closed,
        )
        return evaluate(name, streams, load, await cpu, memory_bytes(running.pid), normalize)
    finally:
        cpu.cancel()
        await connection.close()


def evaluate(
    name: str, streams: int, load: Load, cpu: tuple[float, float], server_memory_bytes: int, normalize: Normalizer
) -> Measurement:
    """The figures of a run. `cpu` are seconds of the server and of the whole machine."""
    server_cpu, machine_cpu = cpu
    chunks = np.array([pair for record in load.records for pair in _measured(record, load)]).reshape(-1, 2)
    finals = np.array([pair for record in load.records for pair in _final(record, load)]).reshape(-1, 2)
    failures = [record.failure for record in load.records if record.failure is not None]
    unanswered = int(np.isnan(chunks[:, 1]).sum() + np.isnan(finals[:, 1]).sum())
    failures += ["no reply in time"] * unanswered
    chunks, finals = (pairs[~np.isnan(pairs[:, 1])] for pairs in (chunks, finals))
    late = chunks[chunks[:, 0] >= load.end_sec - (load.end_sec - load.first_sec) / 4]
    texts = [(record.clip.text, record.text) for record in load.records if record.text is not None]
    errors = (count_word_errors(said, heard, normalize=normalize) for said, heard in texts)
    return Measurement(
        target=name,
        streams=streams,
        seconds=load.end_sec - load.first_sec,
        latency_ms=_percentiles_ms(chunks),
        late_p95_ms=_percentiles_ms(late)[95],
        final_ms=_percentiles_ms(finals),
        chunks=len(chunks),
        failures=tuple(failures),
        streams_finished=len(texts),
        word_errors=sum(errors, WordErrors()),
        server_cpu_sec=server_cpu,
        generator_cpu_sec=load.cpu_sec,
        others_cpu_sec=machine_cpu - server_cpu - load.cpu_sec,
        generator_late_ms=float(np.percentile(load.lateness_sec, 95)) * 1e3 if load.lateness_sec else math.nan,
        server_memory_mib=server_memory_bytes / 2**20,
        cores=len(os.sched_getaffinity(0)),
    )


def _measured(record: StreamRecord, load: Load) -> list[tuple[float, float]]:
    """(due, replied) of the chunks that count; of failed streams those that were answered."""
    return [
        (due, replied)
        for due, replied, measured in zip(record.due, record.replied, record.clip.measured, strict=True)
        if measured and load.first_sec <= due < load.end_sec and (record.failure is None or not math.isnan(replied))
    ]


def _final(record: StreamRecord, load: Load) -> list[tuple[float, float]]:
    ended = load.first_sec <= record.due[-1] < load.end_sec and record.failure is None
    return [(record.due[-1], record.replied[-1])] if ended else []


def _percentiles_ms(pairs: np.ndarray[Any, Any]) -> dict[int, float]:
    """NaN where there are none."""
    latencies = (pairs[:, 1] - pairs[:, 0]) * 1e3
    values = np.percentile(latencies, _PERCENTILES) if len(latencies) else [math.nan] * len(_PERCENTILES)
    return dict(zip(_PERCENTILES, map(float, values), strict=True))


def _named(percentiles: dict[int, float]) -> dict[str, float | None]:
    """For JSON, which has no NaN."""
    return {
        "max" if percent == 100 else f"p{percent}": None if math.isnan(value) else round(value, 1)
        for percent, value in percentiles.items()
    }
