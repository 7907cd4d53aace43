"""Lines of the log, as JSON and as text."""

from __future__ import annotations

import json
import logging
import re
import sys

import pytest

from moulin.log_form import JsonFormatter, TextFormatter, formatter


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("moulin.gateway", logging.INFO, "file.py", 7, message, arguments, None)
    vars(made).update(extra)
    return made


def test_json() -> None:
    line = JsonFormatter().format(record("%s %d", "GET\n", 200, request_id="req_1", status=200, model="ä"))
    assert "\n" not in line
    fields = json.loads(line)
    assert fields.pop("time").startswith("20")
    assert fields == {
        "level": "info",
        "logger": "moulin.gateway",
        "message": "GET\n 200",
        "request_id": "req_1",
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


def test_text() -> None:
    line = TextFormatter().format(record("GET /x 200", duration_ms=1.5, client="::1", model="m", request_id="req_1"))
    assert line.endswith(" GET /x 200  duration_ms=1.5  model=m  request_id=req_1")


@pytest.mark.parametrize(
    ("is_terminal", "time"), [(True, r"\d\d:\d\d:\d\d x"), (False, r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4} x")]
)
def test_a_file_gets_the_date_too(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, time: str) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    assert re.fullmatch(time, formatter("text").format(record("x")))


def test_a_line_on_a_terminal_takes_the_place_of_anothers_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line = formatter("text", clears_line=True).format(record("Listening"))
    assert re.fullmatch(r"\r\x1b\[2K\d\d:\d\d:\d\d Listening", line)
    assert formatter("json", clears_line=True).format(record("Listening")).startswith("{")
