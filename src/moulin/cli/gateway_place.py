"""The gateway of `moulin serve`: its addresses, checked before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from moulin.cli.gateway_access import GatewayAccess, riva_port_option
from moulin.cli.openai_options import OpenAIOptions
from moulin.cli.page_options import PageOptions
from moulin.cli.settings import has_table, setting_of
from moulin.errors import OptionsError
from moulin.log_form import LogFormat
from moulin.options import Bounds, check_options, held, option
from moulin.quoting import quoted

if TYPE_CHECKING:
    from moulin.launch.gateway import GatewayProcess
    from moulin.launch.supervision import SupervisionBoard


_USUAL_PORT = 9000


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """Options of the gateway beside Triton. Raises OptionsError for an invalid port."""

    help_section: ClassVar[str] = "Gateway"

    host: str | None = option(
        None,
        "Address of the gateway alone: 0.0.0.0 opens it to other machines, and Triton stays closed.",
        flag="--gateway-host",
        usual="--host",
    )
    port: int = option(
        _USUAL_PORT,
        "OpenAI's API and the web page; more options: moulin gateway.",
        flag="--gateway-port",
        bounds=Bounds(at_least=0, at_most=65535),
    )
    riva_port: int | None = riva_port_option()
    workers: int = option(1, "Processes of the gateway, which share its limits.", bounds=Bounds(at_least=1))
    no_gateway: bool = option(False, "Triton alone.")
    access: GatewayAccess = held(GatewayAccess)
    openai: OpenAIOptions = held(OpenAIOptions)
    page: PageOptions = held(PageOptions)

    def __post_init__(self) -> None:
        check_options(self)

    def place(
        self, host: str, *, quiet: bool, log_format: LogFormat, max_streams: int = 0, config: Path | None = None
    ) -> GatewayPlace | None:
        """The gateway's addresses, on `host` unless another is asked for; None for no gateway. A port of 0 becomes a
        free one. `config` is a settings file, whose table [gateway] has its other settings. Where these say nothing of
        it, the gateway takes at least `max_streams` live streams.

        Raises OptionsError where keys are needed and missing, or packages are; LaunchError for a busy port.
        """
        if self.no_gateway:
            return None
        from moulin.cli.gateway import check_installed
        from moulin.launch.ports import claim_ports

        check_installed()
        from moulin.gateway.connection_limit import connection_limit
        from moulin.gateway.settings import gateway_settings
        from moulin.launch.temporary_folder import expect_temporary_folder

        said = partial(setting_of, config, "gateway")
        host = self.host or said("host") or host
        access = self.access.beside(said)
        settings = gateway_settings(host=host, **access.settings(), **self.openai.settings())
        more_streams = max_streams if max_streams > settings.max_streams else None
        if said("max-streams") is not None:
            more_streams = None
        if more_streams is not None:
            settings = settings.model_copy(update={"max_streams": more_streams})
        connection_limit(settings)
        expect_temporary_folder()
        # The usual port gives way to that of the gateway's own settings.
        own_port = said("port") if self.port == _USUAL_PORT else None
        wanted = {"--gateway-port": self.port if own_port is None else _port(own_port)}
        if self.riva_port is not None:
            wanted["--riva-port"] = self.riva_port
        ports = claim_ports(host, wanted, owner="the gateway")
        return GatewayPlace(
            host,
            ports["--gateway-port"],
            ports.get("--riva-port"),
            access,
            self.openai,
            self.page,
            self.workers,
            more_streams,
            quiet,
            log_format,
            config if has_table(config, "gateway") else None,
        )


def _port(said: int | str) -> int:
    """Raises OptionsError for what is none."""
    if not str(said).isdecimal() or int(said) > 65535:
        raise OptionsError(f"Expected port of 0 to 65535 among the gateway's settings, got {quoted(said)}")
    return int(said)


@dataclass(frozen=True, slots=True)
class GatewayPlace:
    """Options for `moulin gateway`; it inherits keys in the environment."""

    host: str
    port: int
    riva_port: int | None
    access: GatewayAccess
    openai: OpenAIOptions
    page: PageOptions
    workers: int
    max_streams: int | None
    """Its limit on live streams; None for what it has by itself."""
    quiet: bool
    log_format: LogFormat
    config: Path | None

    @property
    def address(self) -> str:
        """`host:port` at which this machine reaches it."""
        from moulin.launch.ports import reachable

        return reachable(self.host, self.port)

    @property
    def tls(self) -> bool:
        """Whether it serves HTTPS."""
        return self.access.tls_certificate is not None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"

    @property
    def riva_address(self) -> str | None:
        """That of Riva's gRPC; None where it is off."""
        from moulin.launch.ports import reachable

        return None if self.riva_port is None else reachable(self.host, self.riva_port)

    def process(self, triton: str, model: str, board: SupervisionBoard, drain_sec: float) -> GatewayProcess:
        """The gateway in front of the Triton at this gRPC address; OpenAI's model names stand for `model`."""
        from moulin.launch.gateway import GatewayProcess

        arguments = ["--triton", triton, "--host", self.host, "--port", str(self.port), "--name", model]
        arguments += ["--log-format", self.log_format, "--workers", str(self.workers)]
        if self.max_streams is not None:
            arguments += ["--max-streams", str(self.max_streams)]
        if self.riva_port is not None:
            arguments += ["--riva-port", str(self.riva_port)]
        if self.config is not None:
            arguments += ["--config", str(self.config)]
        arguments += self.access.arguments()
        arguments += self.openai.arguments()
        arguments += self.page.arguments()
        if self.quiet:
            arguments.append("--quiet")
        return GatewayProcess(arguments, address=self.address, tls=self.tls, board=board, drain_sec=drain_sec)
