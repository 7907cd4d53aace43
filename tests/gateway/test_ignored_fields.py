from __future__ import annotations

import logging

import pytest

from moulin.gateway.api_error import ApiError
from moulin.gateway.ignored_fields import IgnoredFields


def test_fields_are_named_each_time_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    fields = IgnoredFields(strict=False)
    with caplog.at_level(logging.INFO):
        assert fields.note(()) == {}
        assert fields.note(["seed", "user", "seed"]) == {"x-moulin-ignored": "seed, user"}
        assert fields.note(["user"]) == {"x-moulin-ignored": "user"}
    assert [record.args for record in caplog.records] == [("seed",), ("user",)]


def test_names_are_harmless_in_headers_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    fields = IgnoredFields(strict=False)
    (value,) = fields.note(["a\r\nset-cookie: x", "é" * 1000]).values()
    assert value == f"a??set-cookie??x, {'?' * 60}"
    with caplog.at_level(logging.INFO):
        for number in range(1000):
            fields.note([f"x{number}"])
    assert len(caplog.records) < 250
    (value,) = fields.note(f"y{number}" for number in range(1000)).values()
    assert value.count(",") == 19


def test_strict() -> None:
    fields = IgnoredFields(strict=True)
    assert fields.note(()) == {}
    with pytest.raises(ApiError, match="got 'seed'") as caught:
        fields.note(["seed"])
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unknown_parameter", "seed")
