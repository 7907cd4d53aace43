"""An error in the form of the protocol whose path was asked for: OpenAI's, or Deepgram's."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from moulin.gateway.api_error import ApiError, answer_with
from moulin.gateway.deepgram.errors import is_deepgrams, refusal


def error_response(error: ApiError, scope: Scope) -> Response:
    """The response to the request or WebSocket of `scope`. The request's line in the log gets the error's code."""
    state = scope.get("state", {})
    state["log"] = {**state.get("log", {}), "error": error.code}
    if is_deepgrams(scope["path"]):
        return refusal(error, state.get("request_id", ""))
    return JSONResponse(error.body(), error.status, error.headers())


async def answer(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with `error`; a WebSocket, which is not accepted yet, with the same status and body as HTTP."""
    await answer_with(error_response(error, scope), error, scope, receive, send)
