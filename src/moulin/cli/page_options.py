"""The web page of a gateway: options of `moulin gateway` and `moulin serve`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moulin.options import option


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What the page may do."""

    no_history: bool = option(False, "Do not let the web page keep transcripts in its visitors' browsers.")

    def settings(self) -> dict[str, Any]:
        """As `GatewaySettings` names them."""
        return {"history": not self.no_history}

    def arguments(self) -> list[str]:
        """For `moulin gateway`."""
        return ["--no-history"] if self.no_history else []
