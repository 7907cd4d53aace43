"""Figures of runs under a load: `moulin bench streaming`, and `moulin bench offline --workers` or `--rate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from moulin.evaluate.gpu_usage import GpuUsage
from moulin.evaluate.results.setup import SETTING, Data, Percentiles

Unit = Literal["streams", "workers", "requests_per_sec"]


@dataclass(frozen=True, slots=True)
class TritonFigures:
    """Triton's own statistics of a run."""

    requests: int
    failures: int
    executions: int
    mean_batch: float
    mean_queue_ms: float
    mean_compute_ms: float


@dataclass(frozen=True, slots=True)
class UtteranceFigures:
    """One recording, recognised `times` times in a run: errors of all times, and mean latencies."""

    times: int
    errors: int
    words: int
    latency_ms: float | None
    """Mean latency of its chunks; None where none was measured."""
    final_ms: float | None


@dataclass(frozen=True, slots=True)
class LoadRun:
    """One run of one target. The load is in the one of `streams`, `workers` and `requests_per_sec` that is not None;
    `Measurement` defines the other fields."""

    target: str
    seconds: float
    latency_ms: Percentiles
    final_latency_ms: Percentiles
    failures: int
    wer: float
    server_cpu_sec: float | None
    generator_cpu_sec: float
    streams: float | None = None
    workers: float | None = None
    requests_per_sec: float | None = None
    last_quarter_p95_ms: float | None = None
    first_text_ms: Percentiles | None = None
    chunks_measured: int | None = None
    audio_sec_a_sec: float | None = None
    failure_examples: Sequence[str] = field(default=(), metadata={"written": True})
    streams_finished: int | None = None
    word_errors: int | None = None
    words: int | None = None
    insertions: int | None = None
    deletions: int | None = None
    substitutions: int | None = None
    cer: float | None = None
    partials: int | None = None
    revised_words: int | None = None
    others_cpu_sec: float | None = None
    server_processes_cpu_sec: Sequence[float] = ()
    """CPU seconds, within the window, of the server's own process and of each that it started."""
    generator_late_p95_ms: float | None = None
    disturbed: bool = False
    attempts: int = 1
    server_memory_mib: float | None = None
    requests_sent: int | None = None
    gpus: Sequence[GpuUsage] = ()
    triton: TritonFigures | None = None
    latency_distribution_ms: Sequence[float] = ()
    final_distribution_ms: Sequence[float] = ()
    timeline_ms: Sequence[Sequence[float]] = ()
    utterances: Mapping[str, UtteranceFigures] | None = None

    @property
    def unit(self) -> Unit:
        """The unit of the load."""
        if self.streams is not None:
            return "streams"
        return "workers" if self.workers is not None else "requests_per_sec"

    @property
    def load(self) -> float:
        load = getattr(self, self.unit)
        assert load is not None
        return float(load)

    @property
    def cpu_ms_of_second(self) -> float | None:
        """CPU milliseconds of the server for a second of audio; streams speak in real time. None where unknown."""
        audio = self.streams or self.audio_sec_a_sec
        return 1000 * self.server_cpu_sec / self.seconds / audio if self.server_cpu_sec is not None and audio else None

    @property
    def p95_ms(self) -> float | None:
        """The 95th percentile for chunks, or for whole recordings where a target answers no chunks."""
        return self.final_latency_ms.p95 if self.latency_ms.p95 is None else self.latency_ms.p95


@dataclass(frozen=True, slots=True)
class LoadFigures:
    kind: str
    """streaming or requests"""
    runs: Sequence[LoadRun]
    data: Data | None = None
    normalizer: str | None = None
    decoding: Mapping[str, str | int] | None = None
    threads: int | None = field(default=None, metadata=SETTING)
    device: str | None = field(default=None, metadata=SETTING)
    chunk_ms: int | None = field(default=None, metadata=SETTING)
    jitter_ms: float | None = field(default=None, metadata=SETTING)
    generators: int | None = field(default=None, metadata=SETTING)
    warmup_sec: float | None = field(default=None, metadata=SETTING)
    p95_limit_ms: float | None = field(default=None, metadata=SETTING)
    seconds: float | None = None
    servers: Mapping[str, Mapping[str, str | int]] | None = None
    interrupted: bool = False
    largest: Mapping[str, float] | None = None
    """The highest load that held, by target."""
