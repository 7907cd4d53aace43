"""Access to a gateway: options of `moulin gateway` and `moulin serve`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from moulin.errors import OptionsError
from moulin.options import Bounds, option
from moulin.quoting import quoted

KEYS_VARIABLE = "MOULIN_API_KEYS"


def riva_port_option() -> Any:
    """The option `riva_port`, of both commands."""
    return option(
        None,
        "Riva's gRPC too, usually on 50051; 0 takes a free port.",
        metavar="PORT",
        usual="off",
        bounds=Bounds(at_least=0, at_most=65535),
    )


@dataclass(frozen=True, slots=True)
class GatewayAccess:
    """`api_keys` is a file."""

    help_section: ClassVar[str] = "Access"

    api_keys: Path | None = option(
        None,
        "API keys, one a line, each alone or behind a name; who sends none of them is refused. Read anew when changed.",
        metavar="FILE",
        usual=f"the keys in {KEYS_VARIABLE}, with commas between them",
    )
    allow_anonymous: bool = option(False, "Serve other machines without API keys (with --host).")
    metrics_key: list[str] | None = option(
        None, "Let only the API key of this name read /metrics; several times.", metavar="NAME", usual="all keys"
    )
    allow_origin: list[str] | None = option(
        None, "Let web pages of this origin call (CORS), or * all; several times.", metavar="ORIGIN"
    )
    trusted_proxy: list[str] | None = option(None, "Believe X-Forwarded-For of this reverse proxy.", metavar="ADDRESS")
    tls_certificate: Path | None = option(None, "Serve HTTPS, with --tls-key.", metavar="PEM")
    tls_key: Path | None = option(None, "The certificate's key.", metavar="PEM")

    def beside(self, said: Callable[[str], Any]) -> GatewayAccess:
        """With what the gateway's own settings say, by the names of flags, of who may call and of TLS where these do
        not."""

        def file(own: Path | None, name: str) -> Path | None:
            return own if own is not None or said(name) is None else Path(said(name))

        return replace(
            self,
            api_keys=file(self.api_keys, "api-keys"),
            tls_certificate=file(self.tls_certificate, "tls-certificate"),
            tls_key=file(self.tls_key, "tls-key"),
            allow_anonymous=self.allow_anonymous or str(said("allow-anonymous")).lower() in ("true", "1", "yes", "on"),
        )

    def settings(self) -> dict[str, Any]:
        """As `GatewaySettings` names them. Raises OptionsError; no message ever holds a key."""
        keys = self._keys()
        return {
            "api_keys": keys,
            "api_keys_file": self.api_keys,
            "allow_anonymous": self.allow_anonymous,
            "metrics_keys": self._metrics_keys(keys),
            "allow_origins": self.allow_origin or (),
            "trusted_proxies": self.trusted_proxy or (),
            "tls_certificate": self.tls_certificate,
            "tls_key": self.tls_key,
        }

    def arguments(self) -> list[str]:
        """The command line that says the same. Keys in the environment are inherited."""
        given: list[tuple[str, object]] = [
            ("--api-keys", self.api_keys),
            ("--tls-certificate", self.tls_certificate),
            ("--tls-key", self.tls_key),
            *(("--metrics-key", name) for name in self.metrics_key or ()),
            *(("--allow-origin", origin) for origin in self.allow_origin or ()),
            *(("--trusted-proxy", address) for address in self.trusted_proxy or ()),
        ]
        found = [part for flag, value in given if value is not None for part in (flag, str(value))]
        return [*found, "--allow-anonymous"] if self.allow_anonymous else found

    def _keys(self) -> Sequence[str]:
        from moulin.gateway.named_keys import key_entries

        if self.api_keys is None:
            return [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
        return key_entries(self.api_keys)

    def _metrics_keys(self, entries: Sequence[str]) -> Sequence[str]:
        """Raises OptionsError for a name that is none of the keys'."""
        from moulin.gateway.named_keys import named_keys

        names = {key.name for key in named_keys(entries)}
        for name in self.metrics_key or ():
            if name not in names:
                raise OptionsError(
                    f"Expected --metrics-key to name an API key, got {quoted(name)}",
                    hint="a line of the file of keys is KEY or NAME KEY",
                )
        return self.metrics_key or ()
