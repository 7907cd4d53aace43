"""Options of tritonserver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moulin.options import Bounds, check_options, option

_PORT = Bounds(at_least=0, at_most=65535)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Options of tritonserver; a port of 0 takes a free one. Raises OptionsError for an invalid port."""

    help_section: ClassVar[str] = "Addresses"

    http_port: int = option(8000, "Triton's port for HTTP.", bounds=_PORT)
    grpc_port: int = option(8001, "Triton's port for gRPC.", bounds=_PORT)
    metrics_port: int = option(8002, "Triton's port for metrics.", bounds=_PORT)
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for other machines too.")
    exit_timeout_sec: float = option(
        10.0,
        "When it stops, wait so long for requests and streams that are open.",
        flag="--drain-sec",
        bounds=Bounds(at_least=0, at_most=86_400),
    )
    log_verbose: int = 0
    auto_complete_config: bool = False
    """Let Triton fill gaps in config.pbtxt: it starts every python model once more to ask it."""
    extra_args: tuple[str, ...] = ()
    """More arguments of tritonserver, one argument an item."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def ports(self) -> dict[str, int]:
        """The ports by the flags that set them."""
        return {
            "--http-port": self.http_port,
            "--grpc-port": self.grpc_port,
            "--metrics-port": self.metrics_port,
        }
