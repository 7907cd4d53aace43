"""Where a gateway is, how it is reached, and what its refusals mean."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from moulin.errors import ClientError, OptionsError, RequestRefused, ServerBusy, ServerTimeout, ServerUnavailable
from moulin.quoting import bounded, cut, quoted

_HINTED = re.compile(r"(?P<message>.*) \(hint: (?P<hint>.*)\)", re.DOTALL)
_VERSION = "/v1"


def is_gateway(url: str) -> bool:
    """Whether `url` is a gateway's; Triton's gRPC has an address without a scheme."""
    return url.lower().startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """A gateway behind a URL, which may end in `/v1`; `api_key` goes with every request."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raises OptionsError for another URL than `http://HOST` or `https://HOST:PORT/PATH`."""
        try:
            parts = urlsplit(self.url)
            ok = bool(parts.hostname) and parts.port != 0
        except ValueError:
            ok = False
        if not ok or not is_gateway(self.url) or parts.query or parts.fragment or parts.username:
            raise OptionsError(
                f"Expected a gateway's URL, got {quoted(self.url)}",
                hint="for example https://asr.example or http://localhost:9000",
            )
        if self.api_key is not None and not (
            self.api_key.isascii() and self.api_key.isprintable() and self.api_key.strip()
        ):
            raise OptionsError("Expected an API key of printable ASCII, got other characters")

    @property
    def is_secure(self) -> bool:
        return urlsplit(self.url).scheme.lower() == "https"

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (443 if self.is_secure else 80)

    def path(self, below: str) -> str:
        """The path of `below` in the API, such as `audio/transcriptions`."""
        return urlsplit(self.url).path.rstrip("/").removesuffix(_VERSION) + f"{_VERSION}/{below}"

    def websocket(self, below: str) -> str:
        """The URL of a WebSocket."""
        scheme = "wss" if self.is_secure else "ws"
        return f"{scheme}://{urlsplit(self.url).netloc}{self.path(below)}"

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}

    def unreachable(self, reason: object) -> ServerUnavailable:
        return ServerUnavailable(
            f"No gateway answers at {cut(self.url)}: {cut(str(reason) or type(reason).__name__)}",
            hint=self._cause(reason),
        )

    def _cause(self, reason: object) -> str:
        """What to look at when nothing was understood."""
        if isinstance(reason, ssl.SSLCertVerificationError):
            return "SSL_CERT_FILE names a file with the certificate of a server of your own"
        if isinstance(reason, ssl.SSLError):
            return "a server without TLS is at http://"
        if self.is_secure or (isinstance(reason, OSError) and not isinstance(reason, ConnectionError)):
            return "the gateway's port is 9000 by default"
        return "a server with TLS is at https://; Triton's gRPC port has nothing in front"

    def refusal(self, status: int, body: bytes, headers: Mapping[str, str]) -> ClientError:
        """The error in a response that is no success."""
        message, hint = _said(body)
        if not message:
            message = f"{cut(self.url)} answered with status {status}, and not as a gateway does"
            hint = _moved(status, headers) or "Triton's HTTP port is none; the gateway's is 9000 by default"
        if status == 401 and hint is not None:
            hint = "give --api-key"
        match status:
            case 429:
                return ServerBusy(message, hint=hint)
            case 502 | 503:
                return ServerUnavailable(message, hint=hint)
            case 408 | 504:
                return ServerTimeout(message, hint=hint)
            case _ if 400 <= status < 500:
                return RequestRefused(message, hint=hint)
            case _:
                return ClientError(message, hint=hint)


def _said(body: bytes) -> tuple[str, str | None]:
    """The message and the hint in an error's body; empty where it has none."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return "", None
    if not isinstance(message, str):
        return "", None
    found = _HINTED.fullmatch(message)
    return (bounded(found["message"]), bounded(found["hint"])) if found else (bounded(message), None)


def _moved(status: int, headers: Mapping[str, str]) -> str | None:
    place = next((value for name, value in headers.items() if name.lower() == "location"), None)
    return f"it is at {cut(place)}" if 300 <= status < 400 and place else None
