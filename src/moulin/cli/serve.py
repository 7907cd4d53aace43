"""`moulin serve`: a model directory becomes a running Triton service."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from moulin.cli.arguments import BeamOption, DeviceOption, MethodOption, PortOption, PrecisionOption, decoding_changes
from moulin.triton_repo.contract import MODEL_NAME

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec
    from moulin.launch.server import TritonServer
    from moulin.triton_repo.offline_config import OfflineOptions

_PARENT_CHECK_SEC = 1.0


def add_to(app: typer.Typer) -> None:
    app.command(name="serve", epilog="Example: moulin serve models/zipformer --max-batch 32")(serve)


def serve(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL",
            help="A folder with ONNX files and tokens.txt.  [default: the demo model, English digits]",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The model's name in Triton.")] = MODEL_NAME,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    http_port: PortOption = 8000,
    grpc_port: PortOption = 8001,
    metrics_port: PortOption = 8002,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.  [default: all]")] = None,
    max_batch: Annotated[int, typer.Option(help="Most utterances in a batch, and in a request.")] = 64,
    instances: Annotated[int, typer.Option(help="Processes that each hold the model and share the threads.")] = 1,
    max_audio_sec: Annotated[float, typer.Option(help="Refuse longer utterances.")] = 120.0,
    method: MethodOption = None,
    beam: BeamOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not show Triton's log.")] = False,
) -> None:
    """Serve MODEL on Triton until Ctrl-C, SIGTERM, or the end of the process that started this one.

    Under nohup it outlives its parent. A port of 0 takes a free one.
    """
    parent = os.getppid()
    from moulin.bundle.load import load_bundle
    from moulin.decoding.options import DecodingOptions
    from moulin.demo.files import DEMO_MODEL
    from moulin.engine.onnxruntime_session import check_device
    from moulin.launch.server import ServerOptions, TritonServer
    from moulin.launch.workspace import workspace
    from moulin.triton_repo.offline_config import OfflineOptions
    from moulin.triton_repo.repository import build_offline_repository

    options = OfflineOptions(
        model_name=name,
        device=device,
        threads=threads,
        max_batch=max_batch,
        instances=instances,
        max_audio_sec=max_audio_sec,
        decoding=DecodingOptions().updated(decoding_changes(method, beam)),
    )
    server_options = ServerOptions(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, host=host)
    spec = load_bundle(model or DEMO_MODEL, precision=precision, expect="offline")
    check_device(device)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        with workspace("repository") as repository:
            build_offline_repository(spec, repository, options, link=True)
            typer.echo(f"Loading {spec.name} ...", err=True)
            with TritonServer(repository, server_options, on_line=None if quiet else _show_log) as server:
                server.wait_ready()
                _announce(spec, server, options)
                _wait_for_the_end(server, parent)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show_log(line: str) -> None:
    typer.secho(line, err=True, dim=True)


def _announce(spec: ModelSpec, server: TritonServer, options: OfflineOptions) -> None:
    name = "" if options.model_name == MODEL_NAME else f" --name {options.model_name}"
    typer.echo(
        f"\nServing {spec.name} ({spec.family}, {spec.mode}, {spec.precision}) on {options.device}\n"
        f"  gRPC     {server.grpc_url}\n"
        f"  HTTP     {server.http_url}\n"
        f"  metrics  {server.metrics_url}\n\n"
        f"Try it in another terminal:  moulin transcribe speech.wav --url {server.grpc_url}{name}\n"
        "Ctrl-C stops it.\n",
        err=True,
    )


def _wait_for_the_end(server: TritonServer, parent: int) -> None:
    """Until the server ends by itself, which is a failure, or `parent`, the process that started us, is gone."""
    from moulin.errors import LaunchError

    outlives_parent = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
    while server.wait(_PARENT_CHECK_SEC) is None:
        if os.getppid() != parent and not outlives_parent:
            raise KeyboardInterrupt
    raise LaunchError(
        f"tritonserver ended by itself with exit code {server.poll()}: "
        f"{next((line for line in reversed(server.log_tail) if line.strip()), 'it printed nothing')}"
    )
