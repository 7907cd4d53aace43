"""The gateway of `moulin serve`: where it will listen, checked before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moulin.launch.gateway import GatewayProcess


@dataclass(frozen=True, slots=True)
class GatewayPlace:
    """What `moulin gateway` will be told."""

    host: str
    port: int
    api_keys: Path | None
    """The file; keys in the environment are inherited."""
    allow_anonymous: bool
    quiet: bool

    @classmethod
    def of(cls, host: str, port: int, api_keys: Path | None, *, allow_anonymous: bool, quiet: bool) -> GatewayPlace:
        """A port of 0 becomes a free one.

        Raises OptionsError where keys are needed and missing, or packages are; LaunchError for a busy port.
        """
        from moulin.cli.gateway import check_installed, read_api_keys
        from moulin.launch.ports import claim_ports

        check_installed()
        from moulin.gateway.settings import gateway_settings

        gateway_settings(host=host, api_keys=read_api_keys(api_keys), allow_anonymous=allow_anonymous)
        port = claim_ports(host, {"--gateway-port": port}, owner="the gateway")["--gateway-port"]
        return cls(host, port, api_keys, allow_anonymous, quiet)

    @property
    def address(self) -> str:
        """`host:port` at which this machine reaches it."""
        from moulin.launch.ports import reachable

        return reachable(self.host, self.port)

    def process(self, triton: str, model: str) -> GatewayProcess:
        """The gateway in front of the Triton at this gRPC address; `model` is what OpenAI's names mean."""
        from moulin.launch.gateway import GatewayProcess

        arguments = ["--triton", triton, "--host", self.host, "--port", str(self.port), "--name", model]
        if self.api_keys is not None:
            arguments += ["--api-keys", str(self.api_keys)]
        if self.allow_anonymous:
            arguments.append("--allow-anonymous")
        if self.quiet:
            arguments.append("--quiet")
        return GatewayProcess(arguments, address=self.address)
