"""Lines of the log, as JSON and as text."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from moulin.gateway.request_context import REQUEST_ID
from moulin.gateway.request_log import JsonFormatter, RepeatFilter, TextFormatter


@pytest.fixture
def request_id() -> Iterator[str]:
    token = REQUEST_ID.set("req_1")
    yield "req_1"
    REQUEST_ID.reset(token)


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("moulin.gateway", logging.INFO, "file.py", 7, message, arguments, None)
    vars(made).update(extra)
    return made


def test_json(request_id: str) -> None:
    line = JsonFormatter().format(record("%s %d", "GET\n", 200, status=200, model="ä"))
    assert "\n" not in line
    fields = json.loads(line)
    assert fields.pop("time").startswith("20")
    assert fields == {
        "level": "info",
        "logger": "moulin.gateway",
        "message": "GET\n 200",
        "request_id": request_id,
        "status": 200,
        "model": "ä",
    }


def test_json_of_an_error_outside_of_any_request() -> None:
    failed = record("failed", path=object)
    try:
        raise ValueError("why")
    except ValueError:
        failed.exc_info = sys.exc_info()
    fields = json.loads(JsonFormatter().format(failed))
    assert "request_id" not in fields
    assert "ValueError: why" in fields["exception"]


def test_text(request_id: str) -> None:
    line = TextFormatter().format(record("GET /x 200", duration_ms=1.5, client="::1", model="m"))
    assert line.endswith(f" GET /x 200  duration_ms=1.5  model=m  request_id={request_id}")


def test_the_same_warning_is_written_a_few_times_only() -> None:
    shown = RepeatFilter()
    records = [logging.makeLogRecord({"levelno": logging.ERROR, "msg": "lost %d", "args": (n,)}) for n in range(1000)]
    assert sum(map(shown.filter, records)) == 20


def test_answered_requests_are_all_written_and_refused_ones_not() -> None:
    shown = RepeatFilter()
    answered = [logging.makeLogRecord({"levelno": logging.INFO, "msg": "x", "status": 200}) for _ in range(1000)]
    assert all(map(shown.filter, answered))
    refused = [logging.makeLogRecord({"levelno": logging.INFO, "msg": "x", "status": 404}) for _ in range(1000)]
    assert sum(map(shown.filter, refused)) == 100
