"""Errors in Deepgram's form."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from moulin.gateway.api_error import ApiError

_CODES = {
    400: "Bad Request",
    401: "INVALID_AUTH",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
    415: "Bad Request",
    429: "TOO_MANY_REQUESTS",
    503: "SERVICE_UNAVAILABLE",
    504: "GATEWAY_TIMEOUT",
    507: "INSUFFICIENT_STORAGE",
}


def is_deepgrams(path: str) -> bool:
    """Whether clients of Deepgram's ask for this path."""
    return path in ("/v1/listen", "/v2/listen")


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    return {
        "err_code": _CODES.get(error.status, "Bad Request" if error.status < 500 else "INTERNAL_SERVER_ERROR"),
        "err_msg": str(error),
        "request_id": request_id,
    }


def refusal(error: ApiError, request_id: str) -> Response:
    headers = error.headers() | {"dg-request-id": request_id, "dg-error": _header_text(str(error))}
    return JSONResponse(error_body(error, request_id), error.status, headers)


def _header_text(text: str) -> str:
    """`text` as a header may hold it."""
    return " ".join(text.encode("ascii", "replace").decode().split())
