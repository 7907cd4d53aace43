"""The gateway's API keys, each with a name; read anew when their file changes."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar

from moulin.errors import OptionsError
from moulin.gateway.api_error import ApiError
from moulin.gateway.named_keys import SECRET_PREFIX, NamedKey, key_entries, named_keys
from moulin.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)

KEY_NAME: ContextVar[str] = ContextVar("moulin_key_name", default="")
"""The name of the key of the current task's request; empty without keys."""

_LOOK_SEC = 1.0
"""How often the file is looked at, at most."""


class ApiKeys:
    """The keys of a gateway process; false where it asks for none."""

    def __init__(self, settings: GatewaySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = named_keys(settings.api_keys)
        self._file, self._clock = settings.api_keys_file, clock
        self._seen = self._signature()
        self._look_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._keys)

    def current(self) -> Sequence[NamedKey]:
        """All keys."""
        self._refresh()
        return self._keys

    def name(self, offered: str) -> str:
        """The name of the offered key. Raises ApiError."""
        return self.found(offered).name

    def found(self, offered: str) -> NamedKey:
        """The offered key. All keys are compared, so that timing reveals nothing. Raises ApiError."""
        self._refresh()
        if not offered:
            raise ApiError(
                401, "Expected an API key, got none", code="missing_api_key", hint="send 'Authorization: Bearer KEY'"
            )
        matches = [hmac.compare_digest(offered.encode(), key.key) for key in self._keys]
        if True not in matches:
            is_secret = offered.startswith(SECRET_PREFIX)
            hint = "a client secret opens WS /v1/realtime, and nothing else" if is_secret else None
            raise ApiError(401, "The API key is not one of this gateway's", code="invalid_api_key", hint=hint)
        return self._keys[matches.index(True)]

    def _refresh(self) -> None:
        """Read the file again where it has changed. Of one that cannot be used the keys before it stay."""
        if self._file is None or self._clock() < self._look_at:
            return
        self._look_at = self._clock() + _LOOK_SEC
        found = self._signature()
        if found == self._seen:
            return
        self._seen = found
        try:
            self._keys = named_keys(key_entries(self._file))
        except OptionsError as error:
            logger.warning("The API keys stay as they were: %s", error)
        else:
            logger.info("API keys from %s: %d", self._file, len(self._keys))

    def _signature(self) -> tuple[int, int, int] | None:
        """What tells that the file has changed; None where there is none."""
        try:
            found = self._file.stat() if self._file is not None else None
        except OSError:
            return None
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
