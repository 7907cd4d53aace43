"""Triton servers: moulin's own, started for a run, and any that speaks the contract at an address."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from moulin.bundle.spec import ModelSpec
from moulin.evaluate.connection import Connection
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets import triton_statistics
from moulin.evaluate.targets.target import RunningTarget, ServerSettings, needed, split_model
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.tritonserver import find_tritonserver
from moulin.launch.workspace import workspace
from moulin.models.engine_choice import EngineChoice
from moulin.models.engines import choose_engine
from moulin.triton_repo import contract


def connect_http(
    url: str, model: str, options: str, clips: Sequence[Clip], generator: int, *, int16: bool = False
) -> Connection:
    """`clips` as sequences of chunks, or, where all are whole, as one request each; `int16` sends samples in 16
    bits."""
    from moulin.evaluate.targets.triton_http import HttpWire
    from moulin.evaluate.targets.triton_streams import triton_connection

    return triton_connection(HttpWire(url, model, int16=int16), clips, generator, options)


def connect_grpc(
    url: str, model: str, options: str, clips: Sequence[Clip], generator: int, *, int16: bool = False
) -> Connection:
    """The same over gRPC."""
    from moulin.evaluate.targets.triton_grpc import GrpcWire
    from moulin.evaluate.targets.triton_streams import triton_connection

    return triton_connection(GrpcWire(url, model, int16=int16), clips, generator, options)


def connect_grpc_stream(
    url: str, model: str, options: str, clips: Sequence[Clip], generator: int, *, int16: bool = False
) -> Connection:
    """The same over a few bidirectional gRPC streams."""
    from moulin.evaluate.targets.triton_grpc_stream import GrpcStreamWire
    from moulin.evaluate.targets.triton_streams import triton_connection

    return triton_connection(GrpcStreamWire(url, model, int16=int16), clips, generator, options)


@contextmanager
def started_http(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """moulin's service over HTTP: a request for each chunk or recording."""
    with _moulin(needed(spec), settings) as server:
        yield _running(server, connect_http, server.http_url, settings)


@contextmanager
def started_grpc(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """The same over gRPC: a unary ModelInfer each."""
    with _moulin(needed(spec), settings) as server:
        yield _running(server, connect_grpc, server.grpc_url, settings)


@contextmanager
def started_echo(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """Triton with a model that answers every chunk at once: what the load generator itself costs."""
    from moulin.evaluate.targets.echo_model import build_echo_repository

    with workspace("bench-echo") as repository:
        build_echo_repository(repository, needed(spec))
        with _triton(repository) as server:
            yield _running(server, connect_http, server.http_url, settings)


def http_at(address: str, settings: ServerSettings) -> RunningTarget:
    """The Triton server whose HTTP endpoint is HOST:PORT[/MODEL]."""
    url, model = split_model(address, contract.MODEL_NAME)
    read = partial(triton_statistics.read_over_http, url, model)
    return RunningTarget(None, partial(connect_http, url, model, settings.options), read)


def grpc_at(address: str, settings: ServerSettings) -> RunningTarget:
    """The same of its gRPC endpoint."""
    url, model = split_model(address, contract.MODEL_NAME)
    read = partial(triton_statistics.read_over_grpc, url, model)
    return RunningTarget(None, partial(connect_grpc, url, model, settings.options), read)


def _running(
    server: TritonServer,
    connect: Callable[[str, str, str, Sequence[Clip], int], Connection],
    url: str,
    settings: ServerSettings,
) -> RunningTarget:
    read = partial(triton_statistics.read_over_http, server.http_url, contract.MODEL_NAME)
    return RunningTarget(server.pid, partial(connect, url, contract.MODEL_NAME, settings.options), read)


@contextmanager
def _moulin(spec: ModelSpec, settings: ServerSettings) -> Iterator[TritonServer]:
    from moulin.triton_repo.offline_options import OfflineOptions
    from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
    from moulin.triton_repo.streaming_options import StreamingOptions

    with workspace("bench") as repository:
        engine = EngineChoice(settings.engine, settings.device, threads=settings.threads)
        if spec.streaming:
            build_streaming_repository(spec, repository, StreamingOptions(engine=engine), link=True)
        else:
            build_offline_repository(spec, repository, OfflineOptions(engine=engine), link=True)
        with _triton(repository, choose_engine(spec, settings.engine)) as server:
            yield server


@contextmanager
def _triton(repository: Path, engine: str = "onnxruntime") -> Iterator[TritonServer]:
    triton = find_tritonserver(engines={engine}, say=partial(print, file=sys.stderr))
    with TritonServer(
        repository, ServerOptions(http_port=0, grpc_port=0, metrics_port=0), installation=triton
    ) as server:
        server.wait_ready()
        yield server
