"""What `moulin bench streaming` can measure: moulin through Triton, and the peer's streaming server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moulin.bundle.spec import OnnxModelSpec
from moulin.errors import OptionsError
from moulin.evaluate.sherpa_server import BEST_SETTINGS
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.streaming_load import Connection

if TYPE_CHECKING:
    from moulin.launch.server import TritonServer


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a target's server is started with. `sherpa` are options of the peer's command line, without dashes."""

    threads: int
    device: str = "cpu"
    sherpa: Mapping[str, str] = field(default_factory=dict)

    def described(self, name: str) -> dict[str, str | int]:
        """What of them the target called `name` runs with, for a report."""
        if name.startswith("sherpa"):
            return {**BEST_SETTINGS, **self.sherpa}
        return {"threads": self.threads, "device": self.device}


@dataclass(frozen=True, slots=True)
class RunningTarget:
    """A server, its process, and how a load generator connects to it (called within the event loop)."""

    pid: int
    connect: Callable[[Sequence[Clip]], Connection]


@contextmanager
def moulin_triton_http(spec: OnnxModelSpec, settings: ServerSettings) -> Iterator[RunningTarget]:
    """moulin's service over HTTP: a request for each chunk."""
    from moulin.evaluate.triton_http import HttpWire
    from moulin.evaluate.triton_streams import TritonConnection

    with _triton(spec, settings) as server:
        assert server.pid is not None
        yield RunningTarget(server.pid, lambda clips: TritonConnection(HttpWire(server.http_url), clips))


@contextmanager
def moulin_triton_grpc(spec: OnnxModelSpec, settings: ServerSettings) -> Iterator[RunningTarget]:
    """moulin's service over gRPC: a unary ModelInfer for each chunk."""
    from moulin.evaluate.triton_grpc import GrpcWire
    from moulin.evaluate.triton_streams import TritonConnection

    with _triton(spec, settings) as server:
        assert server.pid is not None
        yield RunningTarget(server.pid, lambda clips: TritonConnection(GrpcWire(server.grpc_url), clips))


@contextmanager
def sherpa_onnx_server(spec: OnnxModelSpec, settings: ServerSettings) -> Iterator[RunningTarget]:
    """sherpa-onnx's online websocket server, with the best settings found and what `settings` changes of them."""
    from moulin.evaluate.sherpa_server import SherpaConnection, sherpa_server

    if settings.device != "cpu":
        raise OptionsError("sherpa-onnx as PyPI has it runs on the CPU only", hint="leave it out of --targets")
    with sherpa_server(spec, {**BEST_SETTINGS, **settings.sherpa}) as (pid, port):
        yield RunningTarget(pid, lambda clips: SherpaConnection(port, clips))


StreamingTarget = Callable[[OnnxModelSpec, ServerSettings], AbstractContextManager[RunningTarget]]

TARGETS: dict[str, StreamingTarget] = {
    "moulin-triton-http": moulin_triton_http,
    "moulin-triton-grpc": moulin_triton_grpc,
    "sherpa-onnx-server": sherpa_onnx_server,
}


def target(name: str) -> StreamingTarget:
    """The target called `name`. Raises OptionsError."""
    if name not in TARGETS:
        raise OptionsError(f"There is no target {name!r}", hint=f"the targets are {', '.join(TARGETS)}")
    return TARGETS[name]


@contextmanager
def _triton(spec: OnnxModelSpec, settings: ServerSettings) -> Iterator[TritonServer]:
    from moulin.launch.server import ServerOptions, TritonServer
    from moulin.launch.workspace import workspace
    from moulin.triton_repo.repository import build_streaming_repository
    from moulin.triton_repo.streaming_config import StreamingOptions

    options = StreamingOptions(device=settings.device, threads=settings.threads)
    with workspace("bench") as repository:
        build_streaming_repository(spec, repository, options, link=True)
        with TritonServer(repository, ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as server:
            server.wait_ready()
            yield server
