"""The languages that a client says, and those of the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from moulin.gateway.api_error import ApiError
from moulin.quoting import listed, quoted

_CODE = re.compile(r"(?P<language>[a-z]{2})(?:[-_][a-z]{4})?(?:[-_](?:[a-z]{2}|[0-9]{3}))?")
"""A language of ISO 639-1, as `en`, `en-US`, `zh_Hans_CN`."""


def check_languages(said: Sequence[str], heard: Sequence[str], *, param: str) -> bool:
    """Whether the languages that a client says are the model's; False where that cannot be told: its files do
    not say it, or the client says something else than codes of two letters.

    Raises ApiError 400 where none of them is one that the model hears: the transcript would be nonsense.
    """
    codes = [match["language"] for match in map(_CODE.fullmatch, (name.lower() for name in said)) if match]
    if len(codes) < len(said) or not codes or any(len(language) != 2 for language in heard) or not heard:
        return False
    if not set(codes) & set(heard):
        raise ApiError(
            400,
            f"Expected a recording in {listed(heard)}, which the model hears, got the language {quoted(said[0])}",
            code="invalid_value",
            param=param,
            hint="ask for a model of that language, or leave the field out",
        )
    return True
