"""RESULT as text."""

from __future__ import annotations

import json
from typing import Any


def result_text(fields: dict[str, Any], request_id: str) -> str:
    """`fields` as JSON, with the id of their request where it has one: `moulin.client` compares it with its own."""
    return json.dumps(fields | {"request_id": request_id} if request_id else fields, ensure_ascii=False)
