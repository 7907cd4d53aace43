"""What whole recordings can go to, a request each."""

from __future__ import annotations

from contextlib import AbstractContextManager

from moulin.bundle.spec import ModelSpec
from moulin.evaluate.targets import sherpa_targets, triton_targets
from moulin.evaluate.targets.target import ConnectTo, RunningTarget, ServerSettings, Start, chosen


def _moulin(spec: ModelSpec | None, settings: ServerSettings) -> AbstractContextManager[RunningTarget]:
    from moulin.evaluate.targets.in_process import moulin_recordings

    return moulin_recordings(spec, settings)


def _sherpa_onnx(spec: ModelSpec | None, settings: ServerSettings) -> AbstractContextManager[RunningTarget]:
    from moulin.evaluate.targets.in_process import sherpa_recordings

    return sherpa_recordings(spec, settings)


def _rest_at(address: str, settings: ServerSettings) -> RunningTarget:
    from moulin.evaluate.targets.openai_rest import rest_at

    return rest_at(address, settings)


TARGETS: dict[str, Start] = {
    "moulin": _moulin,
    "moulin-triton-grpc": triton_targets.started_grpc,
    "moulin-triton-http": triton_targets.started_http,
    "sherpa-onnx": _sherpa_onnx,
    "sherpa-onnx-server": sherpa_targets.started,
    "echo": triton_targets.started_echo,
}
"""What is started for a run."""

ADDRESSED: dict[str, ConnectTo] = {
    "triton-grpc": triton_targets.grpc_at,
    "triton-http": triton_targets.http_at,
    "rest": _rest_at,
    "sherpa": sherpa_targets.at,
}
"""What runs already, as NAME=ADDRESS."""


def target(name: str) -> Start:
    """The target called `name`. Raises OptionsError."""
    return chosen(name, TARGETS, ADDRESSED)
