"""Limits of requests and streams, with a clock of the tests' own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from moulin.gateway.api_error import ApiError
from moulin.gateway.limits import Limits
from moulin.gateway.settings import gateway_settings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limits(clock: Clock, **settings: Any) -> Limits:
    return Limits(gateway_settings(**settings), clock)


def test_a_minutes_allowance_at_once_and_then_evenly(clock: Clock) -> None:
    house = limits(clock, max_requests_per_minute=30)
    for _ in range(30):
        house.count("a")
    with pytest.raises(ApiError, match="at most 30 requests a minute") as caught:
        house.count("a")
    assert caught.value.status == 429
    assert caught.value.headers()["retry-after"] == "2"
    house.count("b")  # nobody else is touched
    clock.now += 1.9
    with pytest.raises(ApiError):
        house.count("a")
    clock.now += 0.2
    house.count("a")
    clock.now += 3600
    for _ in range(30):
        house.count("a")
    with pytest.raises(ApiError):
        house.count("a")


def test_less_than_one_a_minute(clock: Clock) -> None:
    house = limits(clock, max_requests_per_minute=0.5)
    house.count("a")
    with pytest.raises(ApiError) as caught:
        house.count("a")
    assert caught.value.headers()["retry-after"] == "120"
    clock.now += 121
    house.count("a")


def test_no_limit_by_default(clock: Clock) -> None:
    house = limits(clock)
    for _ in range(10_000):
        house.count("a")


def test_many_callers_take_no_more_memory_than_some(clock: Clock) -> None:
    house = limits(clock, max_requests_per_minute=1)
    for number in range(20_000):
        house.count(f"10.0.{number >> 8}.{number & 255}")
    assert len(house._full_at._times) <= 10_000  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["request", "stream"])
def test_places_are_given_back(clock: Clock, kind: str) -> None:
    house = limits(clock, max_requests=2, max_streams=2)
    place = getattr(house, kind)
    with place("a"):
        with pytest.raises(KeyError), place("a"):
            raise KeyError
        with place("a"), pytest.raises(ApiError, match="which is the limit") as caught, place("a"):
            raise AssertionError("a third one")
        assert (caught.value.status, caught.value.code) == (429, "server_busy")
        assert caught.value.headers() == {"retry-after": "1"}
        with place("a"), place("b"):  # one more is kept for who has none
            pass
    with place("a"), place("a"):
        pass


def test_three_quarters_of_all_connections_may_be_sessions(clock: Clock) -> None:
    """Shared by callers: one alone leaves some to others."""
    house = limits(clock, max_connections=16)
    with ExitStack() as held:
        for _ in range(12):
            held.enter_context(house.session("a"))
        with pytest.raises(ApiError, match="12 live sessions are open"), house.session("a"):
            raise AssertionError("a thirteenth one")
        with house.session("b"), house.stream("a"):
            pass
