"""Failures as OpenAI's API words them."""

from __future__ import annotations

import pytest

from moulin.errors import (
    AudioError,
    ClientError,
    EngineError,
    OptionsError,
    RequestRefused,
    ServerBusy,
    ServerTimeout,
    ServerUnavailable,
    StreamError,
)
from moulin.gateway.api_error import ApiError, api_error


@pytest.mark.parametrize(
    ("error", "status", "type", "code", "headers"),
    [
        (ApiError(401, "who?"), 401, "authentication_error", None, {"www-authenticate": "Bearer"}),
        (ApiError(429, "slower", retry_after_sec=2.1), 429, "rate_limit_error", None, {"retry-after": "3"}),
        (AudioError("m"), 400, "invalid_request_error", "invalid_audio", {}),
        (OptionsError("m"), 400, "invalid_request_error", "invalid_request", {}),
        (RequestRefused("m"), 400, "invalid_request_error", "invalid_request", {}),
        (StreamError("m"), 400, "invalid_request_error", "invalid_request", {}),
        (ServerBusy("m"), 429, "rate_limit_error", "server_busy", {"retry-after": "1"}),
        (ServerUnavailable("m"), 503, "server_error", "server_unavailable", {"retry-after": "1"}),
        (ServerTimeout("m"), 504, "server_error", "server_timeout", {}),
        (ClientError("m"), 500, "server_error", "recognition_failed", {}),
        (EngineError("m"), 500, "server_error", "recognition_failed", {}),
        (KeyError("m"), 500, "server_error", "internal_error", {}),
        (RuntimeError("can't start new thread"), 503, "server_error", "server_unavailable", {"retry-after": "1"}),
    ],
)
def test_kinds(error: Exception, status: int, type: str, code: str | None, headers: dict[str, str]) -> None:
    refusal = api_error(error)
    assert (refusal.status, refusal.type, refusal.code) == (status, type, code)
    assert refusal.headers() == headers
    assert set(refusal.body()["error"]) == {"message", "type", "param", "code"}


def test_what_nobody_foresaw_is_not_shown() -> None:
    assert "secret" not in str(api_error(RuntimeError("secret path")).body())


def test_a_hint_is_part_of_the_message() -> None:
    body = api_error(AudioError("too long", hint="cut it")).body()
    assert body["error"]["message"] == "too long (hint: cut it)"
