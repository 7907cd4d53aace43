"""Errors in the form of the protocol that was asked for."""

from __future__ import annotations

import json

import pytest

from moulin.gateway.api_error import ApiError
from moulin.gateway.error_forms import error_response


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/models", {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None}}),
        ("/v1/listen", {"err_code": "Bad Request", "err_msg": "no", "request_id": "req_1"}),
    ],
)
def test_the_form_of_the_path(path: str, expected: object) -> None:
    response = error_response(ApiError(400, "no"), {"path": path, "state": {"request_id": "req_1"}})
    assert json.loads(bytes(response.body)) == expected
