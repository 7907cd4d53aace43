"""The recogniser of `moulin transcribe` and `moulin stream`: a server, or a model in this process."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from moulin.cli.model_options import language_option
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.language_model_files import NO_FILES, LanguageModelFiles
from moulin.options import held, option
from moulin.quoting import quoted
from moulin.triton_repo.contract import MODEL_NAME

if TYPE_CHECKING:
    from moulin.client.gateway_address import GatewayAddress

DEFAULT_URL = "localhost:8001"
KEY_VARIABLE = "MOULIN_API_KEY"


_OTHER_SCHEME = re.compile("(?!dns:|unix:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
"""The beginning of an address that neither gRPC nor a gateway has."""


@dataclass(frozen=True, slots=True)
class RecognizedBy:
    """The model `name` on the server or behind the gateway at `url`; or `model` by `engine`, without a server. Raises
    OptionsError."""

    help_section: ClassVar[str] = "Server or model"

    url: str | None = option(
        None, "gRPC address of the server, or the URL of a gateway (https://…, http://…).", usual=DEFAULT_URL
    )
    api_key: str | None = option(
        None,
        "The gateway's API key, or @FILE with it; as an argument others on this machine see it.",
        metavar="KEY|@FILE",
        usual=f"the key in {KEY_VARIABLE}",
    )
    model: Path | None = option(None, "Recognise in this process with this model, no server.")
    name: str | None = option(None, "The model's name in Triton.", usual=f"{MODEL_NAME}; the default one of a gateway")
    engine: EngineChoice = held(EngineChoice)
    lm: LanguageModelFiles = held(LanguageModelFiles)
    language: str | None = language_option()

    def __post_init__(self) -> None:
        if self.url is not None and self.model is not None:
            raise OptionsError("Expected --url or --model, got both", hint="--model recognises without a server")
        if self.model is not None and self.name is not None:
            raise OptionsError(
                f"Expected --name with a server, got --name {self.name} with --model",
                hint="--model recognises without a server; --name is a model's name there",
            )

        if self.lm != NO_FILES and self.model is None:
            raise OptionsError(
                "Expected --lm with --model, got a server", hint="a server has its own: moulin serve --lm FILE"
            )
        if self.url is not None and self.gateway is None and _OTHER_SCHEME.match(self.url):
            raise OptionsError(
                "Expected --url HOST:PORT of Triton's gRPC, or a gateway's http:// or https://, got "
                f"{quoted(self.url)}",
                hint="localhost:8001, say, or http://localhost:9000: moulin finds the WebSocket there itself",
            )
        if self.api_key is not None and self.gateway is None:
            raise OptionsError(
                "Expected --api-key with the URL of a gateway, got none", hint="Triton's gRPC takes no keys"
            )

    @property
    def address(self) -> str:
        """The gRPC address of the server."""
        return self.url or DEFAULT_URL

    @property
    def served_name(self) -> str:
        return self.name or MODEL_NAME

    @property
    def gateway(self) -> GatewayAddress | None:
        """The gateway at `url`; None for a server or `model`. Raises OptionsError."""
        from moulin.client.gateway_address import GatewayAddress, is_gateway

        if self.url is None or not is_gateway(self.url):
            return None
        return GatewayAddress(self.url, _key(self.api_key))

    def explained(self) -> AbstractContextManager[None]:
        """Within the block a failure to reach a server tells which other port was named, if any."""
        from moulin.cli.other_port import other_ports_recognised

        is_server = self.model is None and self.gateway is None
        return other_ports_recognised(self.address) if is_server else nullcontext()

    def runnable(self, *, streaming: bool) -> Path | None:
        """The files of `model` for `engine`, by `runnable_model`; None where a server recognises."""
        from moulin.cli.runnable_model import runnable_model

        if self.model is None:
            return None
        return runnable_model(self.model, self.engine, streaming=streaming, language=self.language)


def _key(given: str | None) -> str | None:
    """The API key that `--api-key` or the variable gives. Raises OptionsError; no message has the key."""
    if given is None:
        return os.environ.get(KEY_VARIABLE) or None
    if not given.startswith("@"):
        return given
    try:
        key = Path(given[1:]).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise OptionsError(f"Cannot read the API key in {given[1:]}: {reason}") from None
    if not key or len(key.splitlines()) > 1:
        raise OptionsError(f"Expected one API key in {given[1:]}, got {'several lines' if key else 'none'}")
    return key
