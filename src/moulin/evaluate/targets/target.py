"""What can be measured: a target that was started for it, or one that runs already at an address."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial

from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.errors import OptionsError
from moulin.evaluate.connection import Connection
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.triton_statistics import ReadStatistics
from moulin.models.engine_choice import Engine

SHERPA_SETTINGS: Mapping[str, str] = {
    "max-batch-size": "16",
    "num-work-threads": "2",
    "num-threads": "1",
    "num-io-threads": "1",
    "loop-interval-ms": "1",
}
"""Of the peer's streaming server: the best that were found on two cores."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a target's server is started with. `sherpa` are options of the peer's command line, without dashes."""

    threads: int
    device: str = "cpu"
    engine: Engine | None = None
    """Of moulin's targets; by default the one for the model's form."""
    sherpa: Mapping[str, str] = field(default_factory=dict)
    decoding: Mapping[str, str | int] = field(default_factory=dict)
    """Of every target: `method` and `beam`, where they are not the default."""
    api_key: str = ""
    """For targets at an address that want one."""

    @property
    def options(self) -> str:
        """OPTIONS of the Triton contract."""
        return json.dumps(dict(self.decoding)) if self.decoding else ""

    def described(self, name: str) -> dict[str, str | int]:
        """What of them the target called `name` runs with, for a report."""
        if "=" in name:
            return dict(self.decoding)
        if name.startswith("sherpa-onnx-server"):
            return {**SHERPA_SETTINGS, **self.sherpa, **self.decoding}
        engine = {"engine": self.engine} if self.engine else {}
        return {"threads": self.threads, "device": self.device, **engine, **self.decoding}


Connect = Callable[[Sequence[Clip], int], Connection]
"""(clips, generator) to a connection; called within an event loop, in the process of that load generator."""


@dataclass(frozen=True, slots=True)
class RunningTarget:
    """A target and how load generators connect to it."""

    pid: int | None
    """Of its server; None of one that runs elsewhere."""
    connect: Connect
    statistics: ReadStatistics | None = None
    in_process: bool = False
    """Whether it runs in the load generator's own process."""


Start = Callable[[ModelSpec | None, ServerSettings], AbstractContextManager[RunningTarget]]
"""Starts a target; those at an address need no model."""

ConnectTo = Callable[[str, ServerSettings], RunningTarget]
"""An address to the target there."""


def chosen(name: str, started: Mapping[str, Start], addressed: Mapping[str, ConnectTo]) -> Start:
    """The target called `name`, or the one in NAME=ADDRESS. Raises OptionsError."""
    kind, given, address = name.partition("=")
    if not given and kind in started:
        return started[kind]
    if given and kind in addressed:
        if not address:
            raise OptionsError(f"Expected an address behind {name!r}", hint=_choices(started, addressed))
        return partial(_at_address, addressed[kind], address)
    raise OptionsError(f"There is no target {name!r}", hint=_choices(started, addressed))


@contextmanager
def _at_address(
    connect_to: ConnectTo, address: str, _spec: ModelSpec | None, settings: ServerSettings
) -> Iterator[RunningTarget]:
    yield connect_to(address, settings)


def _choices(started: Mapping[str, Start], addressed: Mapping[str, ConnectTo]) -> str:
    there = ", ".join(f"{name}=ADDRESS" for name in addressed)
    return f"the targets are {', '.join(started)}; for what runs already {there}"


def needed(spec: ModelSpec | None) -> ModelSpec:
    """Raises OptionsError where there is no model."""
    if spec is None:
        raise OptionsError("Expected a model for a target that is to be started", hint="name its folder with --model")
    return spec


def onnx(spec: ModelSpec | None) -> OnnxModelSpec:
    """Raises OptionsError where it is not one of ONNX files, which is all that the peer takes."""
    if not isinstance(needed(spec), OnnxModelSpec):
        raise OptionsError("sherpa-onnx takes ONNX files, not a checkpoint", hint="leave it out of --targets")
    assert isinstance(spec, OnnxModelSpec)
    return spec


def split_model(address: str, default: str) -> tuple[str, str]:
    """HOST:PORT[/MODEL] to both. Raises OptionsError."""
    server, _, model = address.removeprefix("http://").partition("/")
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit():
        raise OptionsError(f"Expected HOST:PORT or HOST:PORT/MODEL, got {address!r}")
    return server, model or default
