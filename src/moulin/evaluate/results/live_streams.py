"""Figures of streams in one process, without a service: `moulin bench capacity` and `moulin bench churn`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moulin.evaluate.gpu_usage import GpuUsage
from moulin.evaluate.results.setup import SETTING, Percentiles
from moulin.evaluate.wer import ErrorRate

RESOLUTION = 0.03
"""The relative difference, of the highest load that held and the lowest that did not, at which a search ends."""


@dataclass(frozen=True, slots=True)
class StepRun:
    """Steps of `batch` streams, from samples in host memory to text there; `gpu_ms` is the GPU's part alone."""

    runner: str
    batch: int
    p50_ms: float
    p95_ms: float
    gpu_ms: float | None = None
    memory_mib: float | None = None


@dataclass(frozen=True, slots=True)
class CapacityRun:
    """A run with one number of real-time streams. Shares are of the measured time, and above 1 where threads worked in
    parallel; `steps` is their number; `hopeless` means that the run was ended because chunks were seconds late."""

    streams: int
    seconds: float
    chunk_latency_ms: Percentiles
    last_quarter_p95_ms: float | None
    step_ms: Percentiles
    chunks: int
    steps: int
    mean_batch: float | None
    largest_batch: int
    step_share: float | None
    accept_share: float | None
    gpus: Sequence[GpuUsage]
    hopeless: bool
    held: bool
    characters: float | None = None
    """Length of a stream's text so far, the mean of some streams."""
    memory_mib: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class DifferingText:
    """A sample whose text differs from that of the other recognizer, with its length and options."""

    expected: str
    got: str
    seconds: float | None = None
    finished: bool | None = None
    method: str | None = None
    beam: int | None = None
    blank_penalty: float | None = None
    temperature: float | None = None
    blank_skip: float | None = None


@dataclass(frozen=True, slots=True)
class ChurnRun:
    """The outcome of streams that start, stop, vanish and lag at random; `faults` is empty where all went well."""

    streams: int
    open_at_once: int
    seed: int
    seconds: float
    streams_a_sec: float | None
    ended: int
    vanished: int
    steps: int
    chunks: int
    characters: int
    quarters_mib: Sequence[Mapping[str, float]]
    samples: int
    samples_differing: int
    sample_errors: ErrorRate
    differing: Sequence[DifferingText]
    faults: Sequence[str]


@dataclass(frozen=True, slots=True)
class LiveStreamFigures:
    kind: str
    """capacity or churn; gpu-streaming of older results."""
    device: str | None = field(default=None, metadata=SETTING)
    threads: int | None = field(default=None, metadata=SETTING)
    max_batch: int | None = field(default=None, metadata=SETTING)
    p95_limit_ms: float | None = field(default=None, metadata=SETTING)
    audio: str | None = field(default=None, metadata=SETTING)
    """float32 or int16"""
    slots: int | None = field(default=None, metadata=SETTING)
    """Streams that the recognizer has room for."""
    steps: Sequence[StepRun] = ()
    capacity: Sequence[CapacityRun] = ()
    largest: int | None = None
    """The largest number of streams that held."""
    churn: Sequence[ChurnRun] = ()
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Whether the search for the largest number came to its end."""
        most, failed = self.largest or 0, min((run.streams for run in self.capacity if not run.held), default=None)
        return most == self.slots if failed is None else failed - most <= max(1, RESOLUTION * most)
