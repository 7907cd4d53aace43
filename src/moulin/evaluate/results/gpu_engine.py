"""Figures of `moulin bench gpu`: our offline GPU engine, by parts. Encoders and the service, which older results have
too, are measured by `moulin bench encoder` and `moulin bench offline`, and are not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls one after the other: audio seconds a second, and the time of each call."""

    rtfx: float
    call_ms: Sequence[float]

    def __str__(self) -> str:
        """The RTFx."""
        return f"{self.rtfx:,.0f}"


@dataclass(frozen=True, slots=True)
class PipelineRun:
    """Waveforms in host memory to transcripts, float32 and int16, `calls` calls of `batch` utterances each."""

    size: str
    method: str
    beam: int
    batch: int
    calls: int
    float32: Calls
    int16: Calls


@dataclass(frozen=True, slots=True)
class OptionsRun:
    """One batch with equal options and with another set for each utterance; medians of the calls."""

    size: str
    batch: int
    equal_ms: float
    mixed_ms: float
    ratio: float


@dataclass(frozen=True, slots=True)
class HotwordsRun:
    """Beam search of `calls` calls of `batch` utterances, without hotwords and with `phrases` for each utterance, by
    turns; milliseconds of a call, each the median of the turns, and the ratios' medians."""

    size: str
    beam: int
    batch: int
    calls: int
    phrases: int
    without_ms: float
    known_ms: float
    """With lists that the card has from the calls before."""
    known_ratio: float
    new_ms: float
    """With lists that are new to the card, but spelt already."""
    new_ratio: float
    spelling_ms: float
    """What it takes to spell and compile the lists of a call, where they are new."""
    search_us: float
    """The search's kernel in the first of the calls, without hotwords."""
    search_with_us: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The calling thread's milliseconds in each function of a call, and how long the GPU runs anything."""

    size: str
    rtfx: float
    ms: Mapping[str, float]
    gpu_busy_ms: float


@dataclass(frozen=True, slots=True)
class KernelRun:
    """Microseconds of the search's kernel in a call of `batch` utterances of one length: the median of the calls."""

    size: str
    method: str
    beam: int
    batch: int
    frames: int
    us: float


@dataclass(frozen=True, slots=True)
class MemoryRun:
    """GPU memory reserved after every tenth of so many utterances."""

    utterances: int
    reserved_mib: Sequence[int]
    rtfx_with_making_the_audio: float


@dataclass(frozen=True, slots=True)
class GpuEngineFigures:
    kind: str = "gpu-engine"
    pipeline: Sequence[PipelineRun] = ()
    options: Sequence[OptionsRun] = ()
    hotwords: Sequence[HotwordsRun] = ()
    search: Sequence[KernelRun] = ()
    breakdown: Sequence[Breakdown] = ()
    memory: Sequence[MemoryRun] = ()
    interrupted: bool = False
