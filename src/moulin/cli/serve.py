"""`moulin serve`: model directories become a running Triton service."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moulin.cli.flags import flag_names, with_flags, without
from moulin.cli.gateway_place import GatewayOptions, GatewayPlace
from moulin.cli.interrupt import interrupt_once, interrupts
from moulin.cli.model_options import ModelOptions
from moulin.cli.models import DeviceList, NamedModel, Services, build_models, load_models
from moulin.cli.serve_log import ServeLog, ServeLogOptions
from moulin.cli.settings import ConfigFile, PrintConfig, arguments, print_settings, variables
from moulin.cli.wish import mode_of
from moulin.engine.device import check_slices, device_list
from moulin.errors import OptionsError
from moulin.launch.address_space import TRITON_GIB, expect_address_space
from moulin.launch.server_options import ServerOptions
from moulin.launch.service_manager import ServiceManager
from moulin.launch.threads import expect_threads, service_needs
from moulin.options import held
from moulin.triton_repo.contract import MODEL_NAME, STREAMING_MODEL_NAME
from moulin.triton_repo.streaming_options import StreamingOptions

if TYPE_CHECKING:
    from moulin.launch.server import TritonServer
    from moulin.launch.supervisor import Supervisor
    from moulin.launch.tritonserver import TritonInstallation

_CHECK_SEC = 1.0


@dataclass(frozen=True, slots=True)
class RunningOptions:
    """Options of the running service, whatever models it serves."""

    server: ServerOptions = held(ServerOptions)
    gateway: GatewayOptions = held(GatewayOptions)
    log: ServeLogOptions = held(ServeLogOptions)


def add_to(app: typer.Typer) -> None:
    app.command(
        name="serve",
        epilog="Example: moulin serve models/zipformer --max-batch 32",
        context_settings=variables("serve"),
    )(serve)


@with_flags
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
            "exports are taken as they are, a checkpoint is for both if it was trained for both]",
        ),
    ] = None,
    device: DeviceList = "cpu",
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    *,
    said: ModelOptions,
    services: Annotated[Services, without("device")],
    running: RunningOptions,
) -> None:
    """Serve models on Triton until Ctrl-C, SIGTERM, or the end of the process that started this one.

    Then nothing new is taken, and what is open goes on to its end, for --drain-sec at most; a second signal ends it at
    once. Under nohup it outlives its parent. A port of 0 takes a free one.
    """
    from moulin.launch.unblocked_output import unblock_stderr

    if print_config:
        print_settings(context)
        return
    models = models or [Path(folder) for folder in arguments(context, "models")]
    parent = os.getppid()
    interrupts.allow(None)  # what is open may come to its end
    interrupts.count_also(signal.SIGTERM)
    log = ServeLog(running.log)
    manager = ServiceManager(os.environ.pop("NOTIFY_SOCKET", None), is_watching="WATCHDOG_USEC" in os.environ)
    with log.covering():
        if device != "cpu":
            check_slices(os.environ.get("CUDA_VISIBLE_DEVICES"))
        services = services.on(device_list(device))
        expect_address_space(TRITON_GIB)
        instances = max(2, len(models)) * services.offline.num_instances
        gateways = 0 if running.gateway.no_gateway else running.gateway.workers
        expect_threads(service_needs(instances, gateways=gateways), "the service")
        unblock_stderr()
        if config is not None:
            log.say(f"Settings from {config}")
        gateway = running.gateway.place(
            running.server.host,
            quiet=running.log.quiet,
            log_format=log.form,
            max_streams=_asked_streams(services),
            config=config,
        )
        service = _Service(running, log, manager, gateway, parent)
        if repository is not None:
            _refuse_what_was_decided(context, repository)
            with _until_stopped(log):
                _serve_repository(repository, service)
            return
        from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL

        named = load_models(
            models or [DEMO_MODEL, DEMO_STREAMING_MODEL],
            services.engine,
            said=said,
            names=services.names,
            mode=mode_of(streaming),
            onnx_only=services.layout == "ensemble",
            host_search=services.host_search,
            both_ways=True,
        )
        _serve_models(named, services, service)


def _asked_streams(services: Services) -> int:
    """--max-streams, where it is not the usual number: more than a gateway usually has descriptors for."""
    asked = services.streaming.max_streams
    return 0 if asked == StreamingOptions().max_streams else asked


@contextmanager
def _until_stopped(log: ServeLog) -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, unless they are ignored (nohup); then a line says so."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt_once)
    try:
        yield
    except KeyboardInterrupt:
        log.say("Stopped.")


@dataclass(frozen=True, slots=True)
class Served:
    """A model as the line that announces it describes it."""

    name: str
    streaming: bool
    what: str
    device: str


@dataclass(frozen=True, slots=True)
class _Service:
    """Runs Triton, and the gateway beside it, until the end."""

    running: RunningOptions
    log: ServeLog
    manager: ServiceManager
    gateway: GatewayPlace | None
    parent: int

    def say_loading(self, names: str) -> None:
        self.log.say(f"Loading {names} ...")
        self.manager.status(f"Loading {names}")

    def run(self, repository: Path, triton: TritonInstallation, served: Sequence[Served]) -> None:
        from moulin.launch.gateway import KeptGateway
        from moulin.launch.kept_server import KeptServer
        from moulin.launch.supervision import SupervisionBoard
        from moulin.launch.supervisor import Supervisor

        board = SupervisionBoard()
        self.log.expect_gpu(any(model.device != "cpu" for model in served))
        kept = KeptServer(
            repository,
            self.running.server,
            installation=triton,
            on_line=self.log.triton_line,
            on_restart=partial(self._say_restart, "Triton"),
            board=board,
        )
        drain_sec = self.running.server.exit_timeout_sec
        with interrupts.at_the_end(kept.kill), Supervisor(kept, drain_sec=drain_sec) as supervisor:
            if self.gateway is not None:
                process = self.gateway.process(kept.server.grpc_url, served[0].name, board, drain_sec)
                beside = KeptGateway(process, on_restart=partial(self._say_restart, "it"), board=board)
                with interrupts.at_the_end(beside.kill):
                    supervisor.beside(beside)
                    self._announce_and_wait(supervisor, served)
            else:
                self._announce_and_wait(supervisor, served)

    def _announce_and_wait(self, supervisor: Supervisor, served: Sequence[Served]) -> None:
        _announce(self.log, served, supervisor.triton.server, self.gateway)
        self.manager.ready(", ".join(_serving(served)))
        outlives_parent = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
        why = ""
        try:
            while True:
                supervisor.wait(_CHECK_SEC)
                self.manager.alive()
                if os.getppid() != self.parent and not outlives_parent:
                    why = ", as the process that started it has ended (nohup keeps it)"
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            stopping = f"Stopping{why}; what is open has {self.running.server.exit_timeout_sec:g} s"
            self.log.say(stopping)
            self.manager.stopping(stopping)
            raise

    def _say_restart(self, what: str, reason: str) -> None:
        self.log.say(f"{reason}; {what} is started again")


def _serve_models(named: Sequence[NamedModel], services: Services, service: _Service) -> None:
    from moulin.launch.ports import claim_ports
    from moulin.launch.tritonserver import find_tritonserver
    from moulin.models.engines import check_engine

    _check_resources(len(named), len(named) * services.offline.num_instances)
    devices = [f"cuda:{gpu}" for gpu in services.offline.gpus]
    engines = {
        check_engine(model.spec, replace(model.engine, device=device))
        for model in named
        for device in devices or [model.engine.device]
    }
    # Ports are claimed first: making the environment for Triton may take minutes.
    claim_ports(service.running.server.host, service.running.server.ports)
    with _until_stopped(service.log):
        triton = find_tritonserver(engines=engines, say=service.log.say)
        with _workspace() as built:
            build_models(named, built, services, link=True)
            service.say_loading(" and ".join(dict.fromkeys(model.spec.name for model in named)))
            served = [
                Served(
                    model.name,
                    bool(model.spec.streaming),
                    f"{model.spec.name} ({model.spec.family}, {model.spec.mode}, {model.runs_in})",
                    ",".join(devices) or model.engine.device,
                )
                for model in named
            ]
            service.run(built, triton, served)


@contextmanager
def _workspace() -> Iterator[Path]:
    """A folder for the repository. Where a second Ctrl-C ends the process it is removed too, even while the main thread
    is removing it."""
    from moulin.launch.workspace import discard, workspace

    made: list[Path] = []
    with interrupts.at_the_end(lambda: discard(made[0])), workspace("repository") as folder:
        made.append(folder)
        yield folder


def _refuse_what_was_decided(context: typer.Context, repository: Path) -> None:
    """Raises OptionsError for a flag that `repo build` has decided already."""
    allowed = {"repository", *flag_names(RunningOptions)}
    for parameter in context.command.params:
        name = parameter.name or ""
        value, source = context.params.get(name), context.get_parameter_source(name)
        if name in allowed or source is None or source.name == "DEFAULT":
            continue
        if name == "models" and not value:
            continue
        given = f"the model {value[0]}" if name == "models" and value else parameter.opts[0]
        raise OptionsError(
            f"Expected --repository {repository} alone, got {given} too",
            hint="what a repository serves, and how, was decided by `moulin repo build`; build it anew",
        )


def _serve_repository(repository: Path, service: _Service) -> None:
    from moulin.launch.tritonserver import find_tritonserver
    from moulin.triton_repo.built_models import built_models

    models = built_models(repository)
    _check_resources(len(models), len(models))
    triton = find_tritonserver(engines={model.engine or "onnxruntime" for model in models}, say=service.log.say)
    served = []
    for model in models:
        known = [model.engine or "ensemble", "streaming" if model.streaming else "offline", model.precision]
        served.append(Served(model.name, model.streaming, f"({', '.join(filter(None, known))})", model.device))
    service.say_loading(f"{' and '.join(model.name for model in models)} from {repository}")
    with _workspace() as place:
        # Triton's python stubs fail where there is a space in the path.
        link = place / "repository"
        link.symlink_to(repository.resolve(), target_is_directory=True)
        service.run(link, triton, served)


def _check_resources(num_models: int, num_instances: int) -> None:
    """Raises LaunchError, before anything is started, where open files or shared memory cannot do."""
    from moulin.launch.descriptors import expect_descriptors, triton_needs
    from moulin.launch.shared_memory import expect_shared_memory

    expect_descriptors(triton_needs(num_models), "Triton")
    expect_shared_memory(num_instances)


def _announce(log: ServeLog, models: Sequence[Served], server: TritonServer, gateway: GatewayPlace | None) -> None:
    """The addresses, and commands to try; in JSON one object with all of it."""
    serving = _serving(models)
    addresses = {"gRPC": server.grpc_url, "HTTP": server.http_url, "metrics": server.metrics_url}
    if gateway is not None:
        addresses |= {"OpenAI": f"{gateway.url}/v1", "page": f"{gateway.url}/"}
        if gateway.riva_address is not None:
            addresses["Riva"] = gateway.riva_address
    commands = [
        f"moulin {'stream' if model.streaming else 'transcribe'} speech.wav --url {server.grpc_url}"
        + ("" if model.name in _usual_names(model) else f" --name {model.name}")
        for model in models
    ]
    if log.form == "json":
        log.say(", ".join(serving), models=[model.name for model in models], addresses=addresses)
        return
    lines = ["", *serving, *(f"  {name:8} {address}" for name, address in addresses.items()), ""]
    log.say("\n".join([*lines, "Try it in another terminal:", *(f"  {each}" for each in commands)]))
    log.say("Ctrl-C stops it.\n")


def _serving(models: Sequence[Served]) -> list[str]:
    """A line a model."""
    return [f"Serving {model.what} as {model.name} on {model.device}" for model in models]


def _usual_names(model: Served) -> tuple[str, ...]:
    """Those by which the client finds it without being told."""
    return (MODEL_NAME, STREAMING_MODEL_NAME) if model.streaming else (MODEL_NAME,)
