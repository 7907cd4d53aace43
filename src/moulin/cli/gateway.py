"""`moulin gateway`: OpenAI's API, live captions and the web page in front of Triton servers."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, Literal

import typer

from moulin.cli.failures import ending_in, logged
from moulin.cli.flags import with_flags
from moulin.cli.gateway_access import GatewayAccess, riva_port_option
from moulin.cli.interrupt import interrupt_once, interrupts
from moulin.cli.openai_options import OpenAIOptions
from moulin.cli.page_options import PageOptions
from moulin.cli.settings import ConfigFile, PrintConfig, print_settings, variables
from moulin.errors import MoulinError, OptionsError
from moulin.extras import install_hint
from moulin.log_form import LogFormat
from moulin.options import Bounds, check_options, held, option

_SHARED_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder that workers share, which prometheus_client reads when it is imported."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """Addresses and access of the gateway. Raises OptionsError."""

    help_section: ClassVar[str] = "Addresses"

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for other machines too.")
    port: int = option(9000, "Port to listen on.", bounds=Bounds(at_least=0, at_most=65535))
    riva_port: int | None = riva_port_option()
    access: GatewayAccess = held(GatewayAccess)
    openai: OpenAIOptions = held(OpenAIOptions)
    page: PageOptions = held(PageOptions)

    def __post_init__(self) -> None:
        check_options(self)

    def settings(self) -> dict[str, Any]:
        """As `GatewaySettings` names them."""
        return {
            "host": self.host,
            "port": self.port,
            "riva_port": self.riva_port,
            **self.access.settings(),
            **self.openai.settings(),
            **self.page.settings(),
        }


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the gateway, most of them checked by `GatewaySettings`. Raises OptionsError."""

    help_section: ClassVar[str] = "Limits"

    max_upload_mb: float = option(1024.0, "Refuse larger files.")
    max_audio_sec: float = option(14400.0, "Refuse longer recordings.")
    max_decode_sec: float = option(600.0, "CPU time for decoding one recording.")
    min_upload_bytes_per_sec: float = option(1000.0, "Abort slower uploads.")
    max_requests: int = option(256, "Recordings received or transcribed at once.")
    max_streams: int = option(256, "Live streams with audio at once.")
    max_connections: int | None = option(
        None, "Connections open at once.", usual="what open files (ulimit -n) allow, 4096 at most"
    )
    header_timeout_sec: float = option(10.0, "Close a connection whose request's headers take longer.")
    max_requests_per_minute: float | None = option(None, "Of one API key, or of one address.", usual="no limit")
    stream_idle_sec: float = option(60.0, "A live stream without audio for so long does not count as one.")
    session_idle_sec: float = option(3600.0, "Close a live session on which nothing comes for so long.")
    drain_sec: float = option(10.0, "When it stops, wait so long for requests and streams that are open.")

    move_buffer_mb: int = option(
        1024, "Memory for live audio that is said again to another server when one is lost.", bounds=Bounds(at_least=0)
    )

    def __post_init__(self) -> None:
        check_options(self)

    def settings(self) -> dict[str, Any]:
        """As `GatewaySettings` names them."""
        limits = asdict(self)
        upload, kept = round(limits.pop("max_upload_mb") * 1e6), limits.pop("move_buffer_mb") << 20
        return {"max_upload_bytes": upload, "move_buffer_bytes": kept, **limits}


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Options of the gateway's log on standard error."""

    help_section: ClassVar[str] = "Log"

    quiet: bool = option(False, "Log what goes wrong, not every request.")
    log_format: Literal["text", "json"] | None = option(
        None, "A line of words, or a JSON object a line.", usual="text on a terminal, else json"
    )


def add_to(app: typer.Typer) -> None:
    app.command(
        name="gateway",
        epilog="Example: moulin gateway --triton asr-1:8001 --triton asr-2:8001",
        context_settings=variables("gateway"),
    )(gateway)


@with_flags
def gateway(
    context: typer.Context,
    triton: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT|dns:NAME:PORT",
            help="gRPC address of a Triton server, or a name in DNS each of whose addresses is one; several times for "
            "several.  [default: localhost:8001]",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The model in Triton that clients get who ask for OpenAI's.  [default: transducer]"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve together, and share the limits.")] = 1,
    listen_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    supervision_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    otlp_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Send OpenTelemetry traces there, over OTLP/HTTP.")
    ] = None,
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    *,
    listening: Listening,
    limits: Limits,
    log: LogOptions,
) -> None:
    """Offer OpenAI's audio API, live captions and a web page, on top of running Triton servers.

    On Ctrl-C or SIGTERM nothing new is taken, and what is open goes on to its end, for --drain-sec at most; a second
    signal ends it at once. A port of 0 takes a free one.
    """
    if print_config:
        print_settings(context)
        return
    check_installed()
    from moulin.gateway.request_log import log_to_stderr
    from moulin.launch.unblocked_output import unblock_stderr

    unblock_stderr()  # before the log holds the stream
    form = log.log_format or ("text" if sys.stderr.isatty() else "json")
    log_to_stderr(form, quiet=log.quiet)
    with nullcontext() if form == "text" and sys.stderr.isatty() else ending_in(partial(_log_failure, form)):
        given: dict[str, Any] = {
            "triton": triton,
            "default_model": name,
            "otlp_endpoint": otlp_endpoint,
            "supervision_fd": supervision_fd,
            "shared_folder": os.environ.get(_SHARED_VARIABLE),
        }
        _serve(
            {
                **listening.settings(),
                **limits.settings(),
                **{name: value for name, value in given.items() if value is not None},
            },
            workers,
            listen_fd,
            config,
        )


def _log_failure(form: LogFormat, error: MoulinError) -> None:
    for message, fields in logged(error, form):
        logger.error("%s", message, extra=fields)


def _serve(given: dict[str, Any], workers: int, listen_fd: int | None, config: Path | None) -> None:
    """Serve with the settings `given` until a signal; a worker is handed the socket `listen_fd`. Raises MoulinError."""
    from moulin.gateway.connection_limit import connection_limit
    from moulin.gateway.server import listen, run, with_riva_port
    from moulin.gateway.settings import gateway_settings
    from moulin.launch.ports import reachable
    from moulin.launch.temporary_folder import expect_temporary_folder
    from moulin.launch.threads import GATEWAY_NEEDS, expect_threads

    settings = gateway_settings(**given)
    if settings.supervision_fd is None and listen_fd is None:  # else who started it has looked
        expect_threads(GATEWAY_NEEDS * workers, "the gateway")
    if config is not None:
        logger.info("Settings from %s", config)
    connection_limit(settings)  # before anything is started
    if listen_fd is None:
        expect_temporary_folder()
    listener = listen(settings) if listen_fd is None else socket.socket(fileno=listen_fd)
    if listen_fd is None:
        settings = with_riva_port(settings)
        logger.info("Listening on %s", _url(listener, "https" if settings.tls else "http"))
        if settings.riva_port is not None:
            logger.info("Listening on %s for Riva", reachable(settings.host, settings.riva_port))
    interrupts.allow(None)
    interrupts.count_also(signal.SIGTERM)
    signal.signal(signal.SIGTERM, interrupt_once)
    with suppress(KeyboardInterrupt):
        if workers > 1:
            _run_workers(listener, workers, settings.riva_port, settings.drain_sec)
        else:
            run(settings, listener)


def _run_workers(listener: socket.socket, count: int, riva_port: int | None, drain_sec: float) -> None:
    """Run this command once for each worker, on our socket, with metrics in a shared folder."""
    from prometheus_client.multiprocess import mark_process_dead

    from moulin.launch.supervision import SupervisionBoard
    from moulin.launch.workers import run_workers

    board = SupervisionBoard()
    with TemporaryDirectory(prefix="moulin-metrics-") as folder:

        def ended(pid: int, reason: str) -> None:
            mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
            logger.warning("%s; it is started again", reason)

        command = [
            sys.executable,
            "-m",
            "moulin",
            *sys.argv[1:],
            "--workers",
            "1",
            "--listen-fd",
            f"{listener.fileno()}",
            "--supervision-fd",
            f"{board.fd}",
            *(() if riva_port is None else ("--riva-port", f"{riva_port}")),
        ]
        environ = {**os.environ, _SHARED_VARIABLE: folder}
        fds = (listener.fileno(), board.fd)
        run_workers(
            command,
            count,
            environ=environ,
            pass_fds=fds,
            board=board,
            on_end=ended,
            on_stop=listener.close,  # else the kernel would go on to accept connections for nobody
            drain_sec=drain_sec,
        )


def _url(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def check_installed() -> None:
    """Raises OptionsError where the extra `gateway` is missing."""
    from importlib.util import find_spec

    from moulin.launch.doctor import GATEWAY_MODULES

    missing = [package for module, package in GATEWAY_MODULES.items() if find_spec(module) is None]
    if missing:
        raise OptionsError(
            f"The gateway needs {', '.join(missing)}, which is not installed", hint=install_hint("gateway")
        )
