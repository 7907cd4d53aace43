"""Access to a gateway: options of `moulin gateway` and `moulin serve`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moulin.errors import OptionsError
from moulin.options import Bounds, option

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

    api_keys: Path | None = option(
        None,
        "API keys, one a line; who sends none of them is refused.",
        metavar="FILE",
        usual=f"the keys in {KEYS_VARIABLE}, with commas between them",
    )
    allow_anonymous: bool = option(False, "Serve other machines without API keys (with --host).")

    def keys(self) -> Sequence[str]:
        """The keys in the file, or in the environment. Raises OptionsError; no message ever holds a key."""
        file = self.api_keys
        if file is None:
            return [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
        try:
            lines = [line.strip() for line in file.read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OptionsError(f"Cannot read the API keys in {file}: {reason}") from None
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise OptionsError(f"Expected an API key a line in {file}, got none")
        return keys
