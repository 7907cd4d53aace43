"""Short-lived keys for browsers, which may open live sessions and nothing else (OpenAI's client secrets).

A secret is signed with the API key of whoever asked for it, and holds its time and the session's settings: every worker
and every gateway with that API key can verify it, none stores anything, and it ends with the API key. Where a gateway
asks for no keys, everybody may sign, and it only carries the settings.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moulin.gateway.api_error import ApiError
from moulin.gateway.named_keys import SECRET_PREFIX, NamedKey

FEWEST_SEC, USUAL_SEC, MOST_SEC = 10, 600, 7200
"""OpenAI's."""

_PURPOSE = b"moulin client secret, form 1"
_DIGEST_BYTES = 32
_MOST_CHARS = 6000
"""A WebSocket's handshake takes headers of 8,000 bytes."""
_MOST_SESSION_BYTES = 1 << 18

_NOBODYS = NamedKey("", b"")
"""Signs where there are no API keys."""


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """What a verified secret says: the API key that signed it, and the body of a `session.update`, or `older` of a
    `transcription_session.update`."""

    key: NamedKey
    session: dict[str, Any]
    older: bool


def new_secret(
    api_key: bytes | None, session: dict[str, Any], *, older: bool, valid_sec: int, now: float | None = None
) -> tuple[str, int]:
    """A secret, and when it expires in seconds since 1970. Raises ApiError 400 for settings that are too long."""
    expires_at = int(time.time() if now is None else now) + valid_sec
    said = [expires_at, secrets.token_urlsafe(8), older, session]
    payload = zlib.compress(json.dumps(said, separators=(",", ":")).encode(), 9)
    signed = payload + _signature(api_key or b"", payload)
    value = SECRET_PREFIX + urlsafe_b64encode(signed).decode().rstrip("=")
    if len(value) > _MOST_CHARS:
        raise ApiError(
            400,
            f"Expected settings that fit into a key of {_MOST_CHARS:,} characters, got {len(value):,}",
            code="invalid_value",
            param="session",
            hint="send prompt and keywords with session.update, when the session is open",
        )
    return value, expires_at


def opened(value: str, api_keys: Sequence[NamedKey], *, now: float | None = None) -> ClientSecret:
    """What `value` says. All API keys are tried, so that timing reveals nothing. Raises ApiError 401."""
    api_keys = api_keys or [_NOBODYS]
    try:
        text = value.removeprefix(SECRET_PREFIX)
        signed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError):
        signed = b""
    payload, digest = signed[:-_DIGEST_BYTES], signed[-_DIGEST_BYTES:]
    matches = [hmac.compare_digest(digest, _signature(key.key, payload)) for key in api_keys]
    if True not in matches:
        raise ApiError(401, "The client secret is not one of this gateway's", code="invalid_api_key")
    unpacked = zlib.decompressobj().decompress(payload, _MOST_SESSION_BYTES)
    expires_at, _, older, session = json.loads(unpacked)
    if expires_at <= (time.time() if now is None else now):
        raise ApiError(401, "The client secret has expired", code="invalid_api_key", hint="ask for another")
    return ClientSecret(api_keys[matches.index(True)], session, older)


def _signature(api_key: bytes, payload: bytes) -> bytes:
    """By a key that is made of the API key for this purpose alone."""
    return hmac.digest(hmac.digest(api_key, _PURPOSE, "sha256"), payload, "sha256")
