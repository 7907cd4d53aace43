"""The header that says what of a recording is missing or was chosen: text and subtitles have no field for it."""

from __future__ import annotations

import json
from collections.abc import Sequence

HEADER = "x-moulin-warnings"

_MOST_BYTES = 4096
"""Proxies take a few kilobytes of headers."""


def warnings_header(warnings: Sequence[str]) -> dict[str, str]:
    """The header: a JSON array of sentences in ASCII, without the last ones where it would be too long."""
    said = list(warnings)
    while said and len(value := json.dumps(said)) > _MOST_BYTES:
        said.pop()
    return {HEADER: value} if said else {}
