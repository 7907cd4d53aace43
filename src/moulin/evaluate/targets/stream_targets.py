"""What streams can go to."""

from __future__ import annotations

from contextlib import AbstractContextManager

from moulin.bundle.spec import ModelSpec
from moulin.evaluate.targets import sherpa_targets, triton_targets
from moulin.evaluate.targets.target import ConnectTo, RunningTarget, ServerSettings, Start, chosen


def _moulin(spec: ModelSpec | None, settings: ServerSettings) -> AbstractContextManager[RunningTarget]:
    from moulin.evaluate.targets.in_process import moulin_streams

    return moulin_streams(spec, settings)


def _sherpa_onnx(spec: ModelSpec | None, settings: ServerSettings) -> AbstractContextManager[RunningTarget]:
    from moulin.evaluate.targets.in_process import sherpa_streams

    return sherpa_streams(spec, settings)


def _realtime_at(address: str, settings: ServerSettings) -> RunningTarget:
    from moulin.evaluate.targets.openai_realtime import realtime_at

    return realtime_at(address, settings)


def _stream_at(address: str, settings: ServerSettings) -> RunningTarget:
    from moulin.evaluate.targets.gateway_stream import stream_at

    return stream_at(address, settings)


TARGETS: dict[str, Start] = {
    "moulin": _moulin,
    "moulin-triton-http": triton_targets.started_http,
    "moulin-triton-grpc": triton_targets.started_grpc,
    "sherpa-onnx": _sherpa_onnx,
    "sherpa-onnx-server": sherpa_targets.started,
    "echo": triton_targets.started_echo,
}
"""What is started for a run."""

ADDRESSED: dict[str, ConnectTo] = {
    "triton-http": triton_targets.http_at,
    "triton-grpc": triton_targets.grpc_at,
    "sherpa": sherpa_targets.at,
    "stream": _stream_at,
    "realtime": _realtime_at,
}
"""What runs already, as NAME=ADDRESS."""


def target(name: str) -> Start:
    """The target called `name`. Raises OptionsError."""
    return chosen(name, TARGETS, ADDRESSED)
