"""Errors in the form of OpenAI's API: a status and `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from moulin.errors import (
    AudioError,
    MoulinError,
    OptionsError,
    RequestRefused,
    ServerBusy,
    ServerTimeout,
    ServerUnavailable,
    StreamError,
)
from moulin.launch.threads import is_out_of_threads
from moulin.quoting import bounded, cut

RETRY_AFTER_SEC = 1.0
"""The time to retry after temporary errors."""

_MOST_REASON_BYTES = 123


class ApiError(MoulinError):
    """An error for the client, over HTTP or in an `error` event of a WebSocket.

    However long what it is about, message and hint have at most `quoting.MOST_MESSAGE_BYTES` each.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        hint: str | None = None,
        retry_after_sec: float | None = None,
    ) -> None:
        """`param` names the invalid field of the request; `code` is for programs."""
        super().__init__(bounded(message), hint=hint and bounded(hint))
        self.status, self.code, self.retry_after_sec = status, code, retry_after_sec
        self.param = param and cut(param)

    @property
    def type(self) -> str:
        """OpenAI's error type for the status."""
        if self.status == 401:
            return "authentication_error"
        if self.status == 403:
            return "permission_error"
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        headers = {}
        if self.retry_after_sec is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_sec)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        # Behind what is no HTTP nobody knows where the next request begins; a gateway that stops takes no next one.
        if self.code in ("invalid_http", "server_stopping"):
            headers["connection"] = "close"
        return headers


def api_error(error: Exception) -> ApiError:
    """Any exception as an error for the client. The messages of unexpected ones are not shown, for confidentiality."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ServerBusy):
        return _refusal(error, 429, "server_busy", retry_after_sec=RETRY_AFTER_SEC)
    if isinstance(error, ServerUnavailable):
        return _refusal(error, 503, "server_unavailable", retry_after_sec=RETRY_AFTER_SEC)
    if isinstance(error, ServerTimeout):
        return _refusal(error, 504, "server_timeout")
    if isinstance(error, AudioError):
        return _refusal(error, 400, "invalid_audio", param="file")
    if isinstance(error, OptionsError | RequestRefused | StreamError):
        return _refusal(error, 400, "invalid_request")
    if isinstance(error, MoulinError):
        return _refusal(error, 500, "recognition_failed")
    if is_out_of_threads(error):
        unavailable = ServerUnavailable("The gateway can start no more threads", hint="try again")
        return _refusal(unavailable, 503, "server_unavailable", retry_after_sec=RETRY_AFTER_SEC)
    return ApiError(500, "Something went wrong in the gateway", code="internal_error", hint="its log has the reason")


def server_stopping(what: str) -> ApiError:
    """The error for a request or call that is under way when the grace period ends."""
    return ApiError(
        503,
        f"The gateway is stopping, and the {what} took longer than it waits",
        code="server_stopping",
        hint="send it again",
        retry_after_sec=RETRY_AFTER_SEC,
    )


def server_draining() -> ApiError:
    """The error for a request, stream or call that begins while the gateway lets others come to their end."""
    return ApiError(
        503,
        "The gateway is stopping, and takes nothing new",
        code="server_stopping",
        hint="send it again: where there are several gateways, another takes it",
        retry_after_sec=RETRY_AFTER_SEC,
    )


def _refusal(
    error: MoulinError, status: int, code: str, *, param: str | None = None, retry_after_sec: float | None = None
) -> ApiError:
    return ApiError(status, error.message, code=code, param=param, hint=error.hint, retry_after_sec=retry_after_sec)


async def answer_with(response: Response, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with the response that says `error`, and a WebSocket that is not accepted yet as well."""
    if scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": close_reason(error.message)})
            return
    await response(scope, receive, send)


def close_reason(text: str) -> str:
    """`text` as the reason of a WebSocket's close, which has at most 123 bytes (RFC 6455, section 5.5)."""
    return text.encode("utf-8", "replace")[:_MOST_REASON_BYTES].decode(errors="ignore")
