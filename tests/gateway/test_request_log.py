"""The gateway's log: ids of requests, and warnings that repeat."""

from __future__ import annotations

import logging

from moulin.gateway.request_context import REQUEST_ID
from moulin.gateway.request_log import RepeatFilter, RequestIdFilter


def test_records_have_the_id_of_their_request() -> None:
    during, outside = (logging.makeLogRecord({"msg": "x"}) for _ in range(2))
    token = REQUEST_ID.set("req_1")
    RequestIdFilter().filter(during)
    REQUEST_ID.reset(token)
    RequestIdFilter().filter(outside)
    assert vars(during)["request_id"] == "req_1"
    assert "request_id" not in vars(outside)


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
