"""Triton servers: moulin's own, started for a run, and any that speaks the contract at an address."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from moulin.bundle.spec import ModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.evaluate.connection import Connection
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets import triton_statistics
from moulin.evaluate.targets.target import RunningTarget, ServerSettings, Transcribe, Waveforms, needed
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.tritonserver import find_tritonserver
from moulin.launch.workspace import workspace
from moulin.models.engines import choose_engine
from moulin.triton_repo import contract

if TYPE_CHECKING:
    from moulin.evaluate.targets.triton_streams import Wire
    from moulin.triton_repo.offline_options import OfflineOptions
    from moulin.triton_repo.streaming_options import StreamingOptions

    Options = TypeVar("Options", OfflineOptions, StreamingOptions)

WireName = Literal["http", "http-int16", "grpc", "grpc-int16", "grpc-stream", "grpc-stream-int16", "bundle"]
"""The transport of requests: HTTP, unary gRPC or a few gRPC streams; samples as float32 or as 16 bits. `bundle`: many
streams in one request."""

_IDLE_MODEL_PY = "from moulin.evaluate.targets.idle_shim import TritonPythonModel\n"

CONCURRENCY = 64
"""Concurrent requests: as many as one batch holds, so that the server never waits for the client."""


@contextmanager
def at_once(spec: ModelSpec, settings: ServerSettings) -> Iterator[Transcribe]:
    """moulin's service: a request for each recording over gRPC, CONCURRENCY of them under way (closed loop).

    The client shares the machine with the server.
    """
    from moulin.client import AsyncClient

    async def send_all(url: str, waveforms: Waveforms) -> list[str]:
        slots = asyncio.Semaphore(CONCURRENCY)
        async with AsyncClient(url) as client:

            async def send(number: int) -> str:
                async with slots:
                    return (await client.transcribe(waveforms[number])).text

            return list(await asyncio.gather(*map(send, range(len(waveforms)))))

    with served(spec, settings) as server:
        yield lambda waveforms: asyncio.run(send_all(server.grpc_url, waveforms))


@contextmanager
def started(wire: WireName, spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """moulin's service: a request for each chunk or recording over `wire`."""
    with served(needed(spec), settings) as server:
        yield _running(server, wire, settings)


@contextmanager
def started_idle(wire: WireName, spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """moulin's streaming service over a stepper that does nothing: the way in alone."""
    with served(needed(spec), settings, idle=True) as server:
        yield _running(server, wire, settings)


@contextmanager
def started_echo(wire: WireName, spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """Triton with a model that answers every chunk at once: the cost of the load generator and of Triton alone."""
    from moulin.evaluate.targets.echo_model import build_echo_repository
    from moulin.triton_repo.streaming_options import StreamingOptions

    with workspace("bench-echo") as repository:
        build_echo_repository(repository, needed(spec), with_options(StreamingOptions(), settings.moulin))
        with _triton(repository) as server:
            yield _running(server, wire, settings)


def at(wire: WireName, address: str, settings: ServerSettings) -> RunningTarget:
    """The Triton server whose endpoint for `wire` is HOST:PORT[/MODEL]."""
    url, model = _split_model(address)
    over_http = wire.startswith("http")
    read = triton_statistics.read_over_http if over_http else triton_statistics.read_over_grpc
    return RunningTarget(None, partial(connect, wire, url, model, settings.options), partial(read, url, model))


def connect(
    wire: WireName, url: str, model: str, options: str, clips: Sequence[Clip], generator: int = 0
) -> Connection:
    """`clips` as sequences of chunks, or, where all are whole recordings, as one request each."""
    if wire == "bundle":
        if any(clip.whole for clip in clips):
            raise OptionsError("Bundles are for streams, not for whole recordings", hint="measure them over grpc")
        from moulin.evaluate.targets.triton_bundle import BundleConnection

        return BundleConnection(url, model, options, clips)
    from moulin.evaluate.targets.triton_streams import triton_connection

    return triton_connection(_wire(wire, url, model), clips, generator, options)


def _wire(name: WireName, url: str, model: str) -> Wire:
    int16 = name.endswith("-int16")
    match name.removesuffix("-int16"):
        case "http":
            from moulin.evaluate.targets.triton_http import HttpWire

            return HttpWire(url, model, int16=int16)
        case "grpc":
            from moulin.evaluate.targets.triton_grpc import GrpcWire

            return GrpcWire(url, model, int16=int16)
        case _:
            from moulin.evaluate.targets.triton_grpc_stream import GrpcStreamWire

            return GrpcStreamWire(url, model, int16=int16)


def _running(server: TritonServer, wire: WireName, settings: ServerSettings) -> RunningTarget:
    url = server.http_url if wire.startswith("http") else server.grpc_url
    read = partial(triton_statistics.read_over_http, server.http_url, contract.MODEL_NAME)
    return RunningTarget(server.pid, partial(connect, wire, url, contract.MODEL_NAME, settings.options), read)


@contextmanager
def served(
    spec: ModelSpec, settings: ServerSettings, *, idle: bool = False, lanes: bool = True
) -> Iterator[TritonServer]:
    """moulin's service; `idle` over a stepper that does nothing; without `lanes` as older versions serve streams."""
    from moulin.triton_repo.offline_options import OfflineOptions
    from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
    from moulin.triton_repo.streaming_options import StreamingOptions

    with workspace("bench") as repository:
        engine = settings.engine
        if spec.streaming:
            streaming = with_options(StreamingOptions(engine=engine, lm=settings.lm), settings.moulin)
            folder = build_streaming_repository(spec, repository, streaming, link=True)
            if idle:
                (folder / "1" / "model.py").write_text(_IDLE_MODEL_PY)
            if not lanes:
                _remove_lanes(folder / "config.pbtxt")
        else:
            offline = OfflineOptions(
                engine=engine, decoding=DecodingOptions().updated(settings.decoding), lm=settings.lm
            )
            build_offline_repository(spec, repository, with_options(offline, settings.moulin), link=True)
        with _triton(repository, choose_engine(spec, engine.named)) as server:
            yield server


def _remove_lanes(file: Path) -> None:
    """Take the tensors of lanes out of a config.pbtxt."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    config = text_format.Parse(file.read_text(), pb.ModelConfig())
    usual = {contract.WAV, contract.WAV_LENS, contract.OPTIONS, contract.WAV_INT16, contract.CHUNK_INDEX}
    for tensors, kept in ((config.input, usual), (config.output, {contract.TRANSCRIPTS, contract.RESULT})):
        some = [tensor for tensor in tensors if tensor.name in kept]
        del tensors[:]
        tensors.extend(some)
    file.write_text(text_format.MessageToString(config))


@contextmanager
def _triton(repository: Path, engine: str = "onnxruntime") -> Iterator[TritonServer]:
    triton = find_tritonserver(engines={engine}, say=partial(print, file=sys.stderr))
    ports = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)
    with TritonServer(repository, ports, installation=triton) as server:
        server.wait_ready()
        yield server


def with_options(options: Options, changes: Mapping[str, str]) -> Options:
    """`options` with fields changed by name (max-streams=8000); numbers and booleans as JSON writes them.

    Raises OptionsError for a name that is none, and for values as the class does.
    """
    of_engine = {field.name for field in fields(options.engine)}
    known = of_engine | {field.name for field in fields(options)} - {"engine"}
    values = {name.replace("-", "_"): value for name, value in changes.items()}
    for name in values.keys() - known:
        raise OptionsError(
            f"moulin's service has no option {name.replace('_', '-')!r}",
            hint=f"its options are {', '.join(sorted(known)).replace('_', '-')}",
        )
    try:
        read = {name: json.loads(value) for name, value in values.items()}
        engine = replace(options.engine, **{name: value for name, value in read.items() if name in of_engine})
        return replace(options, engine=engine, **{name: read[name] for name in read.keys() - of_engine})
    except (ValueError, TypeError) as error:
        listed = ", ".join(f"{name}={value}" for name, value in changes.items())
        raise OptionsError(f"Expected numbers for the options of moulin's service, got {listed}") from error


def _split_model(address: str) -> tuple[str, str]:
    """The address and the model in HOST:PORT[/MODEL]. Raises OptionsError."""
    server, _, model = address.removeprefix("http://").partition("/")
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit():
        raise OptionsError(f"Expected HOST:PORT or HOST:PORT/MODEL, got {address!r}")
    return server, model or contract.MODEL_NAME
