"""Fields of requests that change nothing here: named in the answer, once in the log, or refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from moulin.gateway.api_error import ApiError
from moulin.quoting import quoted

logger = logging.getLogger(__name__)

HEADER = "x-moulin-ignored"

_MOST_LOGGED = 200
_MOST_NAMED = 20
_NOT_SANE = re.compile(r"[^A-Za-z0-9_.\[\]-]")
_MOST_NAME = 60


class IgnoredFields:
    """What one gateway process does about them."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._logged: set[str] = set()

    def note(self, names: Iterable[str]) -> dict[str, str]:
        """The headers of the answer to a request that has these fields. Raises ApiError 400 where they are refused."""
        names = list(dict.fromkeys(names))
        if not names:
            return {}
        if self._strict:
            raise ApiError(
                400,
                f"Expected fields that this server uses, got {quoted(names[0])}",
                code="unknown_parameter",
                param=names[0],
                hint="leave it out: it would change nothing",
            )
        shown = [_NOT_SANE.sub("?", name)[:_MOST_NAME] for name in names[:_MOST_NAMED]]
        for name in shown:
            if name not in self._logged and len(self._logged) < _MOST_LOGGED:
                self._logged.add(name)
                logger.info("Clients send the field %s, which changes nothing here", name)
        return {HEADER: ", ".join(shown)}
