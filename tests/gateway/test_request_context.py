"""Ids, logs and errors of a request, whatever its handler does."""

from __future__ import annotations

import logging

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from moulin.gateway.metrics import Metrics
from moulin.gateway.request_context import REQUEST_ID, RequestContext
from moulin.gateway.tracing import NoTracing


async def fine(request: Request) -> Response:
    request.state.log = {"model": "m"}
    assert REQUEST_ID.get() == request.state.request_id
    return PlainTextResponse(request.state.request_id)


async def broken(_request: Request) -> Response:
    raise RuntimeError("secret path")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def client(metrics: Metrics) -> TestClient:
    context = Middleware(RequestContext, metrics=metrics, tracing=NoTracing())
    return TestClient(Starlette(routes=[Route("/fine/{n}", fine), Route("/broken", broken)], middleware=[context]))


def test_the_handler_and_the_client_have_the_same_id(client: TestClient) -> None:
    answer = client.get("/fine/1")
    assert answer.headers["x-request-id"] == answer.text
    assert client.get("/fine/1").text != answer.text


@pytest.mark.parametrize("odd", ["", " ", "a b", "a\tb", "ü", "x" * 129, '{"a":1}'])
def test_an_id_that_would_spoil_a_log_is_replaced(client: TestClient, odd: str) -> None:
    answer = client.get("/fine/1", headers={b"x-request-id": odd.encode()})
    assert answer.text.startswith("req_")


def test_a_line_of_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="moulin.gateway"):
        client.get("/fine/7?key=secret", headers={"authorization": "Bearer secret"})
    (line,) = [record for record in caplog.records if record.name.startswith("moulin.gateway")]
    assert line.getMessage() == "GET /fine/7 200"
    assert (vars(line)["status"], vars(line)["model"], vars(line)["client"]) == (200, "m", "testclient")
    assert "secret" not in str(vars(line))


def test_a_path_does_not_write_lines_into_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="moulin.gateway"):
        client.get("/fine/1%0a2026-01-01%20all%20is%20well")
    assert "GET /fine/1%0A2026-01-01%20all%20is%20well 200" in caplog.text
    assert "\n2026-01-01" not in caplog.text


def test_paths_that_people_make_up_do_not_fill_the_metrics(client: TestClient, metrics: Metrics) -> None:
    for number in range(50):
        client.get(f"/fine/{number}")
        client.get(f"/nowhere/{number}")
    text = metrics.exposition().decode()
    assert 'moulin_gateway_requests_total{method="GET",route="/fine/{n}",status="200"} 50.0' in text
    assert 'moulin_gateway_requests_total{method="GET",route="other",status="404"} 50.0' in text


def test_what_nobody_foresaw(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    quiet = TestClient(client.app, raise_server_exceptions=False)
    answer = quiet.get("/broken")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "secret path" in caplog.text
