"""`moulin gateway`: OpenAI's API, live captions and the web page in front of Triton servers."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import typer

from moulin.cli.interrupt import interrupts
from moulin.errors import OptionsError
from moulin.extras import install_hint

ApiKeysOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="API keys, one a line; who sends none of them is refused.  [default: the keys in MOULIN_API_KEYS, with "
        "commas between them]",
    ),
]
AllowAnonymousOption = Annotated[
    bool, typer.Option("--allow-anonymous", help="Serve other machines without API keys (with --host).")
]
LogFormat = Literal["text", "json"]

KEYS_VARIABLE = "MOULIN_API_KEYS"
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's name for it, which it reads when it is imported."""

logger = logging.getLogger(__name__)


def add_to(app: typer.Typer) -> None:
    app.command(name="gateway", epilog="Example: moulin gateway --triton asr-1:8001 --triton asr-2:8001")(gateway)


def gateway(
    triton: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            help="gRPC address of a Triton server; several times for several.  [default: localhost:8001]",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 9000,
    name: Annotated[
        str | None,
        typer.Option(help="The model in Triton that clients get who ask for OpenAI's.  [default: transducer]"),
    ] = None,
    api_keys: ApiKeysOption = None,
    allow_anonymous: AllowAnonymousOption = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let web pages of this origin call (CORS), or * all; several times."),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="Believe X-Forwarded-For of this reverse proxy.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(metavar="PEM", help="Serve HTTPS, with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM")] = None,
    max_upload_mb: Annotated[float, typer.Option(help="Refuse larger files.")] = 1024,
    max_audio_sec: Annotated[float, typer.Option(help="Refuse longer recordings.")] = 14400,
    max_requests: Annotated[int, typer.Option(help="Recordings received or transcribed at once.")] = 256,
    max_streams: Annotated[int, typer.Option(help="Live streams open at once.")] = 256,
    max_requests_per_minute: Annotated[
        float | None, typer.Option(help="Of one API key, or of one address.  [default: no limit]")
    ] = None,
    stream_idle_sec: Annotated[
        float, typer.Option(help="Close a live stream on which nothing comes for so long.")
    ] = 60,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve together; limits count in each.")] = 1,
    listen_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    otlp_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Send OpenTelemetry traces there, over OTLP/HTTP.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log what goes wrong, not every request.")] = False,
    log_format: Annotated[LogFormat | None, typer.Option(help="[default: text on a terminal, else json]")] = None,
) -> None:
    """Offer OpenAI's audio API, live captions and a web page, on top of running Triton servers.

    Stops on Ctrl-C or SIGTERM, when requests under way have finished. A port of 0 takes a free one.
    """
    check_installed()
    from moulin.gateway.request_log import log_to_stderr
    from moulin.gateway.server import listen, run
    from moulin.gateway.settings import gateway_settings

    given: dict[str, Any] = {
        "triton": triton,
        "default_model": name,
        "allow_origins": allow_origin,
        "trusted_proxies": trusted_proxy,
        "max_requests_per_minute": max_requests_per_minute,
        "otlp_endpoint": otlp_endpoint,
        "metrics_folder": os.environ.get(_METRICS_VARIABLE),
    }
    settings = gateway_settings(
        host=host,
        port=port,
        api_keys=read_api_keys(api_keys),
        allow_anonymous=allow_anonymous,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        max_upload_bytes=round(max_upload_mb * 1e6),
        max_audio_sec=max_audio_sec,
        max_requests=max_requests,
        max_streams=max_streams,
        stream_idle_sec=stream_idle_sec,
        **{name: value for name, value in given.items() if value is not None},
    )
    log_to_stderr(log_format or ("text" if sys.stderr.isatty() else "json"), quiet=quiet)
    listener = listen(settings) if listen_fd is None else socket.socket(fileno=listen_fd)
    if listen_fd is None:
        logger.info("Listening on %s", _url(listener, "https" if settings.tls else "http"))
    interrupts.allow(None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        if workers > 1:
            _run_workers(listener, workers)
        else:
            run(settings, listener)


def _run_workers(listener: socket.socket, count: int) -> None:
    """This same command for each worker, on our socket and with metrics in a folder of all."""
    from prometheus_client.multiprocess import mark_process_dead

    from moulin.launch.workers import run_workers

    with TemporaryDirectory(prefix="moulin-metrics-") as folder:

        def ended(pid: int, code: int) -> None:
            mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
            logger.warning("A worker ended with exit code %d; it is started again", code)

        command = [
            sys.executable,
            "-m",
            "moulin",
            *sys.argv[1:],
            "--workers",
            "1",
            "--listen-fd",
            f"{listener.fileno()}",
        ]
        environ = {**os.environ, _METRICS_VARIABLE: folder}
        run_workers(command, count, environ=environ, pass_fd=listener.fileno(), on_end=ended)


def _url(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def read_api_keys(file: Path | None) -> Sequence[str]:
    """From the file, or from the environment. Raises OptionsError; no message ever holds a key."""
    if file is None:
        return [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"Cannot read the API keys in {file}: {getattr(error, 'strerror', None) or error}") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise OptionsError(f"Expected an API key a line in {file}, got none")
    return keys


def check_installed() -> None:
    """Raises OptionsError where the extra `gateway` is missing."""
    from importlib.util import find_spec

    from moulin.launch.doctor import GATEWAY_MODULES

    missing = [package for module, package in GATEWAY_MODULES.items() if find_spec(module) is None]
    if missing:
        raise OptionsError(
            f"The gateway needs {', '.join(missing)}, which is not installed", hint=install_hint("gateway")
        )
