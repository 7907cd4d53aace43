"""The seam between benchmarks and targets: how a target is started, its settings, and its connections."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moulin.bundle.spec import ModelSpec
from moulin.errors import OptionsError
from moulin.evaluate.connection import Connection
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.triton_statistics import ReadStatistics
from moulin.models.engine_choice import USUAL_ENGINE, EngineChoice
from moulin.models.language_model_files import NO_FILES, LanguageModelFiles

SHERPA_SETTINGS: Mapping[str, str] = {
    "max-batch-size": "16",
    "num-work-threads": "2",
    "num-threads": "1",
    "num-io-threads": "1",
    "loop-interval-ms": "1",
}
"""Settings of the peer's streaming server: the best that were found on two cores."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings with which a target is started."""

    engine: EngineChoice = USUAL_ENGINE
    """The engine of moulin's targets; its threads and device are those of all targets."""
    decoding: Mapping[str, str | int] = field(default_factory=dict)
    """Decoding of every target: `method` and `beam`, where they are not the default."""
    sherpa: Mapping[str, str] = field(default_factory=dict)
    """Options of the command line of the peer's server, without dashes."""
    moulin: Mapping[str, str] = field(default_factory=dict)
    """Options of moulin's service, by the names of the fields of StreamingOptions or OfflineOptions."""
    api_key: str = ""
    """The key for targets at an address that want one."""
    lm: LanguageModelFiles = NO_FILES
    """The language model of moulin's targets."""

    @property
    def threads(self) -> int:
        """CPU threads of the target."""
        return self.engine.threads or len(os.sched_getaffinity(0))

    @property
    def options(self) -> str:
        """OPTIONS of the Triton contract."""
        return json.dumps(dict(self.decoding)) if self.decoding else ""

    def described(self, name: str) -> dict[str, str | int]:
        """The settings that apply to the target called `name`, for a report."""
        if "=" in name:
            return dict(self.decoding)
        if name.startswith("sherpa-onnx-server"):
            return {**SHERPA_SETTINGS, **self.sherpa, **self.decoding}
        engine = {"engine": self.engine.kind} if self.engine.kind else {}
        return {"threads": self.threads, "device": self.engine.device, **engine, **self.moulin, **self.decoding}


Connect = Callable[[Sequence[Clip], int], Connection]
"""(clips, generator) to a connection; called within an event loop, in the process of that load generator."""


@dataclass(frozen=True, slots=True)
class RunningTarget:
    """A target and how load generators connect to it."""

    pid: int | None
    """The process id of its server; None for one that runs elsewhere."""
    connect: Connect
    statistics: ReadStatistics | None = None
    in_process: bool = False
    """Whether it runs in the load generator's own process."""
    gateway_pid: int | None = None
    """The process id of the gateway in front of it, if one was started."""

    @property
    def pids(self) -> list[int]:
        """The processes of which the usage is measured, with those that they start."""
        return [pid for pid in (self.pid, self.gateway_pid) if pid is not None]


Start = Callable[[ModelSpec | None, ServerSettings], AbstractContextManager[RunningTarget]]
"""Starts a target that takes requests or streams; a target at an address needs no model."""

ConnectTo = Callable[[str, ServerSettings], RunningTarget]
"""Finds the target at an address."""


Waveforms = Sequence[NDArray[np.float32]]
"""Recordings, each float32 [n] (16 kHz, mono)."""

Transcribe = Callable[[Waveforms], list[str]]
"""All recordings to their texts, as fast as the target can; the clock of `bench offline` runs for this call."""

StartAtOnce = Callable[[ModelSpec, ServerSettings], AbstractContextManager[Transcribe]]
"""Starts a target that takes all recordings in one call; it goes away with the context."""


def needed(spec: ModelSpec | None) -> ModelSpec:
    """Raises OptionsError where there is no model."""
    if spec is None:
        raise OptionsError("Expected a model for a target that is to be started", hint="name its folder with --model")
    return spec
