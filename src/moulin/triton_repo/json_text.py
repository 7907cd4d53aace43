"""RESULT and updates as JSON, in a tenth of the time of `json`: a server writes thousands a second."""

from __future__ import annotations

from typing import Any

import msgspec

json_text = msgspec.json.Encoder().encode
"""(JSON-ready fields) to JSON, UTF-8."""


def result_text(fields: dict[str, Any], request_id: str) -> bytes:
    """`fields` as `json_text`, with the id of their request where it has one: `moulin.client` compares it with its
    own."""
    return json_text(fields | {"request_id": request_id} if request_id else fields)
