from __future__ import annotations

import pytest

from moulin.gateway.adaptive_limit import AdaptiveLimit


def _settle(pieces_a_sec: float, rounds: int = 50) -> int:
    """The limit with a model that does so many pieces a second, all of them late by what is before them."""
    limit = AdaptiveLimit(at_least=2, at_most=32)
    for _ in range(rounds):
        for _ in range(at_once := limit.value):
            limit.after(at_once / pieces_a_sec, full=True)
    return limit.value


@pytest.mark.parametrize(
    ("pieces_a_sec", "least", "most"), [(0.1, 2, 2), (2.0, 2, 2), (10.0, 4, 8), (20.0, 8, 16), (1000.0, 32, 32)]
)
def test_what_is_under_way_is_done_within_a_second(pieces_a_sec: float, least: int, most: int) -> None:
    assert least <= _settle(pieces_a_sec) <= most


def test_quick_answers_of_an_idle_service_say_nothing() -> None:
    limit = AdaptiveLimit(at_least=2, at_most=32)
    for _ in range(100):
        limit.after(0.01, full=False)
    assert limit.value == 2


def test_it_falls_when_the_model_becomes_slow_and_grows_again() -> None:
    limit = AdaptiveLimit(at_least=2, at_most=32)
    for _ in range(40):
        limit.after(0.01, full=True)
    assert limit.value == 32
    for _ in range(100):
        limit.after(5.0, full=True)
    assert limit.value == 2
    for _ in range(5):
        limit.after(0.6, full=True)
    assert limit.value == 2
    for _ in range(5):
        limit.after(0.01, full=True)
    assert limit.value == 7


def test_more_servers_than_places() -> None:
    assert AdaptiveLimit(at_least=80, at_most=32).after(5.0, full=True) == 80
