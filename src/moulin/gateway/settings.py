"""The operator's settings of the gateway: read once, checked, and never changed."""

from __future__ import annotations

from pathlib import Path

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from moulin.client.protocol import DEFAULT_MODEL
from moulin.client.replay import KEPT_BYTES
from moulin.errors import OptionsError
from moulin.gateway.named_keys import named_keys
from moulin.gateway.server_names import Name
from moulin.launch.ports import is_loopback
from moulin.quoting import quoted

ANY_LANGUAGE = "any"


class GatewaySettings(BaseModel):
    """Settings. Sizes are in bytes, times in seconds; `None` means no limit. Limits apply to each worker process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    triton: tuple[str, ...] = ("localhost:8001",)
    """gRPC addresses, and names in DNS as `dns:NAME:PORT`, each of whose addresses is a server."""
    default_model: str = DEFAULT_MODEL
    model_aliases: tuple[str, ...] = ()
    """Further names, each NAME, of the default model, or NAME=MODEL; beside those of `model_names.NAME_PATTERNS`."""
    model_languages: tuple[str, ...] = ()
    """What all models hear, codes of ISO 639-1; `any` compares nothing. By default what each model's name says."""
    strict_fields: bool = False
    """Refuse fields of requests that change nothing; by default they are named in `X-Moulin-Ignored`."""

    history: bool = True
    """Whether the web page may keep transcripts in its visitors' browsers."""

    host: str = "127.0.0.1"
    port: NonNegativeInt = 9000
    riva_port: NonNegativeInt | None = None
    """The port of Riva's gRPC; None for none, 0 for a free one."""
    api_keys: tuple[str, ...] = ()
    """Entries `KEY` or `NAME KEY`."""
    api_keys_file: Path | None = None
    """The file that `api_keys` are from, which is read again when it changes."""
    metrics_keys: tuple[str, ...] = ()
    """Names of the keys that may read /metrics; by default all."""
    allow_anonymous: bool = False
    """Serve other machines without a key."""
    allow_origins: tuple[str, ...] = ()
    """Web pages of other origins that may call (CORS, WebSockets); `*` for all."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses of reverse proxies, whose X-Forwarded-For names the caller."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    max_upload_bytes: PositiveInt = 1 << 30
    max_audio_sec: PositiveFloat = 4 * 3600.0
    max_upload_sec: PositiveFloat = 900.0
    """An upload that takes longer is aborted."""
    max_decode_sec: PositiveFloat = 600.0
    """CPU time for decoding one recording; less for little audio (`isolated_decoding.messages.DecodingLimits`)."""
    min_upload_bytes_per_sec: PositiveFloat = 1000.0
    """An upload that is slower on average is aborted, after its first fifteen seconds."""
    max_requests: PositiveInt = 256
    """Recordings that may be in progress, from upload to response; the next is refused."""
    max_streams: PositiveInt = 256
    """Live streams with audio at once."""
    max_connections: PositiveInt | None = None
    """Connections that may be open at once; by default as many as the limit on open files allows, 4,096 at most."""
    header_timeout_sec: PositiveFloat = 10.0
    """A connection that has not sent a whole request's headers in this time is closed."""
    max_requests_per_minute: PositiveFloat | None = None
    """The limit for one API key, or for one address without keys."""
    stream_idle_sec: PositiveFloat = 60.0
    """A live stream without audio for this time loses its place among `max_streams`."""
    session_idle_sec: PositiveFloat = 3600.0
    """A live session over a WebSocket of moulin's or OpenAI's without messages for this time is closed."""
    drain_sec: NonNegativeFloat = 10.0
    """When the gateway stops, what is open may go on for so long."""
    triton_timeout_sec: PositiveFloat = 120.0
    """The timeout for one piece of audio."""
    move_buffer_bytes: NonNegativeInt = KEPT_BYTES
    """Audio of live streams that is kept, to be said again to another server if theirs is lost."""
    shared_folder: Path | None = None
    """The folder in which a gateway's workers share metrics and counts: each reports those of all, and limits are one
    for all."""
    supervision_fd: int | None = None
    """The descriptor of the supervisor's `SupervisionBoard`, whose state the gateway publishes."""
    otlp_endpoint: str | None = None
    """The URL of an OTLP collector for OpenTelemetry traces over HTTP."""

    def model_post_init(self, _context: object) -> None:
        if not self.triton:
            raise OptionsError("Expected the address of at least one Triton server, got none")
        for address in self.triton:
            Name.of(address)
        for name, model in self.aliases.items():
            if not name or not model:
                raise OptionsError(f"Expected an alias NAME or NAME=MODEL, got {quoted(f'{name}={model}')}")
        for code in self.model_languages:
            if code != ANY_LANGUAGE and not (len(code) == 2 and code.isascii() and code.islower()):
                raise OptionsError(f"Expected languages as codes of two letters (en), or any, got {quoted(code)}")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise OptionsError("Expected a TLS certificate and its key, got one of the two")
        for file in (self.tls_certificate, self.tls_key):
            if file is not None and not file.is_file():
                raise OptionsError(f"Expected a PEM file at {file}, got no such file")
        named_keys(self.api_keys)
        if not (self.api_keys or self.allow_anonymous or is_loopback(self.host)):
            raise OptionsError(
                f"Expected API keys for a gateway that listens on {self.host}, where other machines reach it, got none",
                hint="give --api-keys FILE, or --allow-anonymous to serve everybody",
            )

    @property
    def aliases(self) -> dict[str, str]:
        """The model for each name of `model_aliases`."""
        pairs = (alias.partition("=") for alias in self.model_aliases)
        return {name: model if equals else self.default_model for name, equals, model in pairs}

    @property
    def tls(self) -> bool:
        return self.tls_certificate is not None


def gateway_settings(**fields: object) -> GatewaySettings:
    """Settings from an operator's values. Raises OptionsError, in one line, for an invalid one."""
    try:
        return GatewaySettings.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise OptionsError(f"Gateway setting {name}: {first['msg']}, got {first['input']!r}") from None
