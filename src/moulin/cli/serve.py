"""`moulin serve`: model directories become a running Triton service."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from moulin.bundle.checkpoint_choice import CheckpointChoice
from moulin.cli.arguments import (
    BeamOption,
    DeviceOption,
    EngineOption,
    LanguageOption,
    MethodOption,
    PortOption,
    PrecisionOption,
    decoding_changes,
)
from moulin.cli.checkpoint_options import AveragedModelOption, AvgOption, EpochOption, IterOption, TokensOption
from moulin.cli.gateway import AllowAnonymousOption, ApiKeysOption
from moulin.cli.gateway_place import GatewayPlace
from moulin.cli.interrupt import interrupts, unfinished
from moulin.cli.models import (
    CudaGraphsOption,
    EndpointOption,
    IdleTimeoutOption,
    InstancesOption,
    LayoutOption,
    LingerOption,
    MaxAudioOption,
    MaxBatchOption,
    MaxStepOption,
    MaxStreamsOption,
    NameOption,
    StreamingNameOption,
    build_models,
    load_models,
)
from moulin.cli.recipe_options import (
    CausalOption,
    ChunkSizeOption,
    LeftContextOption,
    NumHeadsOption,
    PosHeadDimOption,
    RightContextOption,
    recipe_of_options,
)
from moulin.cli.wish import mode_of
from moulin.errors import OptionsError
from moulin.triton_repo.contract import MODEL_NAME, STREAMING_MODEL_NAME

if TYPE_CHECKING:
    from moulin.launch.gateway import GatewayProcess
    from moulin.launch.kept_server import KeptServer
    from moulin.launch.server import ServerOptions, TritonServer

_CHECK_SEC = 1.0


def add_to(app: typer.Typer) -> None:
    app.command(name="serve", epilog="Example: moulin serve models/zipformer --max-batch 32")(serve)


def serve(
    context: typer.Context,
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MODEL",
            help="Folders with ONNX files or a checkpoint, and tokens.txt: an offline model, a streaming one, both.  "
            "[default: the two demo models, English digits]",
        ),
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Serve what `moulin repo build` wrote, as it is.")
    ] = None,
    streaming: Annotated[
        bool | None,
        typer.Option(
            "--streaming/--offline",
            help="Serve a checkpoint, or of several exports one, for live audio or for whole utterances.  [default: "
            "exports are taken as they are, a checkpoint is for whole utterances]",
        ),
    ] = None,
    epoch: EpochOption = None,
    iteration: IterOption = None,
    avg: AvgOption = None,
    use_averaged_model: AveragedModelOption = False,
    tokens: TokensOption = None,
    chunk_size: ChunkSizeOption = None,
    left_context_frames: LeftContextOption = None,
    right_context: RightContextOption = None,
    causal: CausalOption = None,
    num_heads: NumHeadsOption = None,
    pos_head_dim: PosHeadDimOption = None,
    language: LanguageOption = None,
    name: NameOption = None,
    streaming_name: StreamingNameOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    http_port: PortOption = 8000,
    grpc_port: PortOption = 8001,
    metrics_port: PortOption = 8002,
    layout: LayoutOption = "fused",
    engine: EngineOption = None,
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65535, help="OpenAI's API and the web page; more options: moulin gateway.")
    ] = 9000,
    no_gateway: Annotated[bool, typer.Option("--no-gateway", help="Triton alone.")] = False,
    api_keys: ApiKeysOption = None,
    allow_anonymous: AllowAnonymousOption = False,
    device: DeviceOption = "cpu",
    cuda_graphs: CudaGraphsOption = True,
    precision: PrecisionOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.  [default: all]")] = None,
    max_batch: MaxBatchOption = None,
    instances: InstancesOption = 1,
    max_audio_sec: MaxAudioOption = 120.0,
    max_streams: MaxStreamsOption = 1024,
    idle_timeout_sec: IdleTimeoutOption = 15.0,
    max_step_ms: MaxStepOption = None,
    linger_ms: LingerOption = 0.0,
    endpoint: EndpointOption = True,
    method: MethodOption = None,
    beam: BeamOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not show Triton's log, nor a line a request.")] = False,
) -> None:
    """Serve models on Triton until Ctrl-C, SIGTERM, or the end of the process that started this one.

    Under nohup it outlives its parent. A port of 0 takes a free one.
    """
    parent = os.getppid()
    interrupts.allow(None)  # requests under way may finish
    from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
    from moulin.launch.kept_server import KeptServer
    from moulin.launch.ports import claim_ports
    from moulin.launch.server import ServerOptions
    from moulin.launch.tritonserver import find_tritonserver
    from moulin.launch.workspace import workspace
    from moulin.models.engines import check_engine, device_of

    gateway = (
        None
        if no_gateway
        else GatewayPlace.of(host, gateway_port, api_keys, allow_anonymous=allow_anonymous, quiet=quiet)
    )
    server_options = ServerOptions(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, host=host)
    if repository is not None:
        _refuse_model_options(context, repository)
        with _until_stopped():
            _serve_repository(repository, server_options, gateway, parent, quiet=quiet)
        return
    changes = decoding_changes(method, beam)
    recipe = recipe_of_options(
        causal=causal,
        num_heads=num_heads,
        pos_head_dim=pos_head_dim,
        chunk_size=chunk_size,
        left_context_frames=left_context_frames,
        right_context=right_context,
        streaming=bool(streaming),
    )
    named = load_models(
        models or [DEMO_MODEL, DEMO_STREAMING_MODEL],
        precision=precision,
        name=name,
        streaming_name=streaming_name,
        engine=engine,
        device=device,
        recipe=recipe,
        choice=CheckpointChoice(epoch, iteration, avg, use_averaged_model),
        tokens=tokens,
        mode=mode_of(streaming),
        language=language,
        onnx_only=layout == "ensemble",
    )
    engines = {check_engine(model.spec, engine, device) for model in named}
    # Before minutes may go by in which the environment for Triton is made.
    claim_ports(host, {"--http-port": http_port, "--grpc-port": grpc_port, "--metrics-port": metrics_port})

    with _until_stopped():
        triton = find_tritonserver(engines=engines, say=_say)
        with workspace("repository") as built, unfinished(built):
            build_models(
                named,
                built,
                link=True,
                layout=layout,
                backend="python",
                engine=engine,
                device=device,
                cuda_graphs=cuda_graphs,
                threads=threads,
                max_batch=max_batch,
                instances=instances,
                max_audio_sec=max_audio_sec,
                max_streams=max_streams,
                idle_timeout_sec=idle_timeout_sec,
                max_step_ms=max_step_ms,
                linger_ms=linger_ms,
                stream_changes={"endpoint": endpoint},
                decoding_changes=changes,
            )
            typer.echo(f"Loading {' and '.join(model.spec.name for model in named)} ...", err=True)
            on_line = None if quiet else _show_log
            kept = KeptServer(built, server_options, installation=triton, on_line=on_line, on_restart=_say_restart)
            on = device_of(engine, device)
            served = [
                Served(
                    model.name,
                    bool(model.spec.streaming),
                    f"{model.spec.name} ({model.spec.family}, {model.spec.mode}, {model.precision})",
                    on,
                )
                for model in named
            ]
            _serve(kept, served, gateway, parent)


@contextmanager
def _until_stopped() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, unless they are ignored (nohup); then a line says so."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)


@dataclass(frozen=True, slots=True)
class Served:
    """What is said of a model."""

    name: str
    streaming: bool
    what: str
    device: str


def _serve(kept: KeptServer, served: Sequence[Served], gateway: GatewayPlace | None, parent: int) -> None:
    with interrupts.at_the_end(kept.kill), kept:
        beside = gateway.process(kept.server.grpc_url, served[0].name) if gateway else None
        with interrupts.at_the_end(beside.kill) if beside else nullcontext(), beside or nullcontext():
            _announce(served, kept.server, gateway)
            _wait_for_the_end(kept, beside, parent)


_FOR_A_REPOSITORY = {
    *("repository", "host", "http_port", "grpc_port", "metrics_port", "gateway_port", "no_gateway", "api_keys"),
    *("allow_anonymous", "quiet"),
}


def _refuse_model_options(context: typer.Context, repository: Path) -> None:
    """Raises OptionsError for what was decided when the repository was built."""
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if name in _FOR_A_REPOSITORY or source is None or source.name not in ("COMMANDLINE", "ENVIRONMENT"):
            continue
        given = f"the model {value[0]}" if name == "models" and value else f"--{name.replace('_', '-')}"
        if name == "models" and not value:
            continue
        raise OptionsError(
            f"Expected --repository {repository} alone, got {given} too",
            hint="what a repository serves, and how, was decided by `moulin repo build`; build it anew",
        )


def _serve_repository(
    repository: Path, options: ServerOptions, gateway: GatewayPlace | None, parent: int, *, quiet: bool
) -> None:
    from moulin.launch.kept_server import KeptServer
    from moulin.launch.tritonserver import find_tritonserver
    from moulin.launch.workspace import workspace
    from moulin.triton_repo.built_models import built_models

    models = built_models(repository)
    triton = find_tritonserver(engines={model.engine or "onnxruntime" for model in models}, say=_say)
    served = []
    for model in models:
        known = [model.engine or "ensemble", "streaming" if model.streaming else "offline", model.precision]
        served.append(Served(model.name, model.streaming, f"({', '.join(filter(None, known))})", model.device))
    typer.echo(f"Loading {' and '.join(model.name for model in models)} from {repository} ...", err=True)
    on_line = None if quiet else _show_log
    with workspace("repository") as place, unfinished(place):
        # Triton's python stubs fail where there is a space in the path.
        link = place / "repository"
        link.symlink_to(repository.resolve(), target_is_directory=True)
        kept = KeptServer(link, options, installation=triton, on_line=on_line, on_restart=_say_restart)
        _serve(kept, served, gateway, parent)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _show_log(line: str) -> None:
    typer.secho(line, err=True, dim=True)


def _announce(models: Sequence[Served], server: TritonServer, gateway: GatewayPlace | None) -> None:
    typer.echo(err=True)
    for model in models:
        typer.echo(f"Serving {model.what} as {model.name} on {model.device}", err=True)
    typer.echo(
        f"  gRPC     {server.grpc_url}\n  HTTP     {server.http_url}\n  metrics  {server.metrics_url}\n"
        + (f"  OpenAI   http://{gateway.address}/v1\n  page     http://{gateway.address}/\n" if gateway else "")
        + "\n"
        "Try it in another terminal:",
        err=True,
    )
    for model in models:
        verb = "stream" if model.streaming else "transcribe"
        usual = (MODEL_NAME, STREAMING_MODEL_NAME) if model.streaming else (MODEL_NAME,)
        name = "" if model.name in usual else f" --name {model.name}"
        typer.echo(f"  moulin {verb} speech.wav --url {server.grpc_url}{name}", err=True)
    typer.echo("Ctrl-C stops it.\n", err=True)


def _say_restart(reason: str) -> None:
    typer.secho(f"{reason}; Triton is started again", err=True)


def _wait_for_the_end(triton: KeptServer, gateway: GatewayProcess | None, parent: int) -> None:
    """Until Triton has died too often, which is a failure, or `parent`, the process that started us, is gone.

    A gateway that has ended is started again: those who talk to Triton need not notice.
    """
    outlives_parent = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
    while True:
        triton.watch(_CHECK_SEC)
        if os.getppid() != parent and not outlives_parent:
            raise KeyboardInterrupt
        if gateway is not None and gateway.poll() is not None:
            typer.secho(f"The gateway ended with exit code {gateway.poll()}; it is started again", err=True)
            gateway.start()
