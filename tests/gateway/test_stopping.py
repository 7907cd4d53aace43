"""Requests that outlast the grace period, on a real uvicorn."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from moulin.gateway.draining import Draining
from moulin.gateway.metrics import Metrics
from moulin.gateway.request_context import RequestContext
from moulin.gateway.request_log import CutOffFilter
from moulin.gateway.stopping import Stopping
from moulin.gateway.tracing import NoTracing

_begun = threading.Event()


async def _never(_request: Request) -> Response:
    _begun.set()
    await asyncio.sleep(100)
    raise AssertionError


async def _events(_request: Request) -> Response:
    async def pieces() -> AsyncIterator[str]:
        yield "data: one\n\n"
        _begun.set()
        await asyncio.sleep(100)

    return StreamingResponse(pieces(), media_type="text/event-stream")


def _answer(path: str) -> httpx.Response:
    """To a request for `path`, of a server that is stopped as soon as the request is under way."""
    _begun.clear()
    app = Starlette(
        routes=[Route("/never", _never), Route("/v1/listen", _never), Route("/events", _events)],
        middleware=[
            Middleware(RequestContext, metrics=Metrics(), tracing=NoTracing()),
            Middleware(Stopping, draining=Draining()),
        ],
    )
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()

        def stop() -> None:
            _begun.wait(30)
            server.should_exit = True

        threading.Thread(target=stop, daemon=True).start()
        host, port = listener.getsockname()
        answer = httpx.get(f"http://{host}:{port}{path}", timeout=30)
        thread.join(30)
    return answer


def test_deepgrams_form() -> None:
    answer = _answer("/v1/listen")
    assert answer.status_code == 503
    assert answer.json()["err_code"] == "SERVICE_UNAVAILABLE"
    assert "The gateway is stopping" in answer.json()["err_msg"]


def test_a_clear_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="moulin.gateway"):
        answer = _answer("/never")
    (line,) = [record for record in caplog.records if record.name.startswith("moulin.gateway")]
    assert (line.getMessage(), vars(line)["error"]) == ("GET /never 503", "server_stopping")
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "server_stopping")
    assert error["message"].startswith("The gateway is stopping")
    assert answer.headers["retry-after"] == "1"


def test_the_log_calls_it_no_error(caplog: pytest.LogCaptureFixture) -> None:
    uvicorns, words = logging.getLogger("uvicorn.error"), CutOffFilter()
    uvicorns.addFilter(words)
    _answer("/never")
    uvicorns.removeFilter(words)
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.levelname == "WARNING"
    assert line.getMessage() == "The time to stop (--drain-sec) is over; requests and streams that are cut off: 1"


def test_an_event_stream_ends_with_the_error() -> None:
    answer = _answer("/events")
    assert answer.text.startswith("data: one\n\ndata: {")
    assert '"server_stopping"' in answer.text
