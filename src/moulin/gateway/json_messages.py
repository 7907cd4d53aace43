"""Messages of live sockets that are JSON objects."""

from __future__ import annotations

from typing import Any

from moulin.gateway.api_error import ApiError
from moulin.untrusted_json import JsonError, read_json


def read_message(
    text: str | bytes, *, most_bytes: int, not_json: str, no_object: str, hint: str | None = None
) -> dict[str, Any]:
    """The fields of a client's message. Raises ApiError 400 with the code `not_json` or `no_object`."""
    try:
        fields = read_json(text, most_bytes=most_bytes)
    except JsonError as error:
        raise ApiError(400, f"The message is not JSON: {error}", code=not_json, hint=hint) from None
    if not isinstance(fields, dict):
        raise ApiError(400, f"Expected a JSON object, got {type(fields).__name__}", code=no_object)
    return fields
