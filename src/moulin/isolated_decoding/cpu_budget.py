"""A limit on the CPU time of a process that decodes, which grows with the audio that comes of a recording."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator

from moulin.arrays import Floats
from moulin.audio.timeline import Skip
from moulin.audio.waveform import SAMPLE_RATE
from moulin.isolated_decoding.messages import DecodingLimits
from moulin.long_audio.recording_pieces import Blocks


class CpuBudget:
    """The process's limit of CPU time for one recording, beyond which the kernel kills the process (SIGXCPU)."""

    def __init__(self, limits: DecodingLimits) -> None:
        self._limits, self._decoded, self._allowed = limits, 0, 0
        self._used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])  # by recordings before this one
        self.allow(0)

    def allow(self, samples: int) -> None:
        """Note that so many samples more have come."""
        self._decoded += samples
        allowed = math.ceil(self._used + self._limits.allowed_cpu_sec(self._decoded / SAMPLE_RATE))
        if allowed != self._allowed:
            resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))
            self._allowed = allowed


class ChargedRecording:
    """A recording each block of which allows the process more CPU time."""

    def __init__(self, recording: Blocks, budget: CpuBudget) -> None:
        self._recording, self._budget = recording, budget

    def __iter__(self) -> Iterator[Floats | Skip]:
        return self

    def __next__(self) -> Floats | Skip:
        block = next(self._recording)
        self._budget.allow(0 if isinstance(block, Skip) else len(block))
        return block

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._recording.warnings
