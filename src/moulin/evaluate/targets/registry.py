"""All targets of measurements, a row each: a new target is a file of its own and a row here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast, get_args

from moulin.bundle.load_model import load_model
from moulin.bundle.precision import Precision
from moulin.bundle.spec import ModelSpec
from moulin.errors import OptionsError
from moulin.evaluate.targets import (
    gateway_stream,
    moulin_engine,
    openai_realtime,
    openai_rest,
    sherpa_engine,
    sherpa_server,
    started_gateway,
    triton,
)
from moulin.evaluate.targets.target import ConnectTo, RunningTarget, ServerSettings, Start, StartAtOnce, Transcribe
from moulin.models.engine_choice import Engine
from moulin.models.precisions import check_precision

Load = Literal["requests", "streams"]
"""Whole recordings, a request each; or recordings in chunks, in real time."""


@dataclass(frozen=True, slots=True)
class Target:
    """Functions that start a target, or find it at an address (NAME=ADDRESS), for each way of measuring it; None where
    it is not measured that way."""

    at_once: StartAtOnce | None = None
    """All recordings in one call."""
    requests: Start | None = None
    streams: Start | None = None
    requests_at: ConnectTo | None = None
    streams_at: ConnectTo | None = None
    engine: Engine | None = None
    """The engine of `at_once`, where the name says it."""


def _both(start: Start) -> Target:
    return Target(requests=start, streams=start)


def _both_at(connect_to: ConnectTo) -> Target:
    return Target(requests_at=connect_to, streams_at=connect_to)


_WIRES = [wire for wire in get_args(triton.WireName) if wire != "bundle"]

TARGETS: Mapping[str, Target] = {
    "moulin": Target(moulin_engine.at_once, moulin_engine.requests, moulin_engine.streams),
    "moulin-openvino": Target(moulin_engine.at_once, engine="openvino"),
    "moulin-triton": Target(triton.at_once),
    **{f"moulin-triton-{wire}": _both(partial(triton.started, wire)) for wire in _WIRES},
    "moulin-triton-bundle": Target(streams=partial(triton.started, "bundle")),
    **{
        f"moulin-gateway{f'-{count}' if count > 1 else ''}": Target(streams=partial(started_gateway.started, count))
        for count in started_gateway.WORKERS
    },
    "idle-gateway": Target(streams=partial(started_gateway.started, 1, idle=True)),
    "idle-gateway-unary": Target(streams=partial(started_gateway.started, 1, idle=True, lanes=False)),
    "sherpa-onnx": Target(requests=sherpa_engine.requests, streams=sherpa_engine.streams),
    **{f"sherpa-onnx-batch{n}": Target(partial(sherpa_engine.batches_at_once, n)) for n in (1, 4, 16)},
    "sherpa-onnx-threads": Target(sherpa_engine.threads_at_once),
    "sherpa-onnx-server": _both(sherpa_server.started),
    **{f"echo-{wire}": Target(streams=partial(triton.started_echo, wire)) for wire in _WIRES},
    **{f"idle-{wire}": Target(streams=partial(triton.started_idle, wire)) for wire in get_args(triton.WireName)},
    "echo": Target(streams=partial(triton.started_echo, "http")),
    "triton-grpc": _both_at(partial(triton.at, "grpc")),
    "triton-http": _both_at(partial(triton.at, "http")),
    "triton-bundle": Target(streams_at=partial(triton.at, "bundle")),
    "sherpa": _both_at(sherpa_server.at),
    "rest": Target(requests_at=openai_rest.rest_at),
    "stream": Target(streams_at=gateway_stream.stream_at),
    "realtime": Target(streams_at=openai_realtime.realtime_at),
}


def at_once(name: str) -> StartAtOnce:
    """The target called `name`, NAME or NAME:PRECISION, that takes all recordings in one call. Raises OptionsError."""
    kind, in_precision, precision = name.partition(":")
    row = TARGETS.get(kind)
    known = get_args(Precision)
    if row is None or row.at_once is None or (in_precision and precision not in known):
        names = [name for name, row in TARGETS.items() if row.at_once]
        raise OptionsError(
            f"There is no target {name!r}",
            hint=f"the targets are {', '.join(names)}, each also as NAME:PRECISION, of {', '.join(known)}",
        )
    if row.engine is None and not precision:
        return row.at_once
    return partial(_at_once_by, row.at_once, row.engine, cast("Precision | None", precision or None))


def target(name: str, load: Load) -> Start:
    """The target NAME, or the one at NAME=ADDRESS, that takes `load`. Raises OptionsError."""
    kind, at_address, address = name.partition("=")
    row = TARGETS.get(kind, Target())
    if at_address and (connect_to := row.requests_at if load == "requests" else row.streams_at):
        if not address:
            raise OptionsError(f"Expected an address behind {name!r}", hint=_choices(load))
        return partial(_found, connect_to, address)
    if not at_address and (start := row.requests if load == "requests" else row.streams):
        return start
    raise OptionsError(f"There is no target {name!r}", hint=_choices(load))


def started_names(load: Load) -> list[str]:
    """The targets that are started for a run."""
    return [name for name, row in TARGETS.items() if (row.requests if load == "requests" else row.streams)]


@contextmanager
def _at_once_by(
    start: StartAtOnce, engine: Engine | None, precision: Precision | None, spec: ModelSpec, settings: ServerSettings
) -> Iterator[Transcribe]:
    """`start` with another engine or in another precision than the other targets of a run, of files in one folder."""
    chosen = settings.engine
    if engine is not None:
        chosen = replace(chosen, kind=engine, precision=None)
    if precision is not None:
        chosen = replace(chosen, precision=precision)
    check_precision(chosen)
    files = load_model(spec.path, precision=chosen.file_precision, expect="offline")
    with start(files, replace(settings, engine=chosen)) as transcribe:
        yield transcribe


@contextmanager
def _found(
    connect_to: ConnectTo, address: str, _spec: ModelSpec | None, settings: ServerSettings
) -> Iterator[RunningTarget]:
    yield connect_to(address, settings)


def _choices(load: Load) -> str:
    there = [name for name, row in TARGETS.items() if (row.requests_at if load == "requests" else row.streams_at)]
    return (
        f"the targets are {', '.join(started_names(load))}; for what runs already "
        f"{', '.join(f'{name}=ADDRESS' for name in there)}"
    )
