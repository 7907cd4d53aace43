from __future__ import annotations

from moulin.launch.repeats import Repeats


def test_a_line_again_and_again() -> None:
    now = [0.0]
    repeats = Repeats(burst=3, period_sec=10.0, clock=lambda: now[0])
    assert [repeats.admit("a") for _ in range(5)] == [0, 0, 0, None, None]
    assert repeats.admit("b") == 0
    now[0] = 10.0
    assert repeats.admit("a") == 2
    assert repeats.admit("a") == 0


def test_any_number_of_different_lines() -> None:
    repeats = Repeats()
    assert all(repeats.admit(number) == 0 for number in range(10_000))
    assert len(repeats._seen) <= 1001
