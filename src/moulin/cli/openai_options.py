"""How the gateway takes what clients of OpenAI's API ask for: options of `moulin gateway` and `moulin serve`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from moulin.options import option


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """Checked by `GatewaySettings`."""

    help_section: ClassVar[str] = "OpenAI's API"

    model_alias: list[str] | None = option(
        None, "Another name of MODEL, or of the model that OpenAI's names mean; several times.", metavar="NAME[=MODEL]"
    )
    model_language: list[str] | None = option(
        None,
        "A language that the models hear (en), instead of what their names say; several times. any: compare none.",
        metavar="CODE",
    )
    strict_fields: bool = option(False, "Refuse requests with fields that change nothing, instead of naming them.")

    def settings(self) -> dict[str, Any]:
        """As `GatewaySettings` names them."""
        return {
            "model_aliases": self.model_alias or (),
            "model_languages": self.model_language or (),
            "strict_fields": self.strict_fields,
        }

    def arguments(self) -> list[str]:
        """For `moulin gateway`."""
        aliases = [part for alias in self.model_alias or () for part in ("--model-alias", alias)]
        languages = [part for code in self.model_language or () for part in ("--model-language", code)]
        return [*aliases, *languages, *(["--strict-fields"] if self.strict_fields else [])]
