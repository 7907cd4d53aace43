from __future__ import annotations

from collections.abc import Iterator

import pytest

from moulin.engine.whole_machine import all_threads_help


@pytest.mark.parametrize(
    ("one", "all_threads", "help_"),
    [
        ([9.0, 1.0, 1.0, 1.0], [9.0, 0.5, 0.6, 0.5], True),
        ([9.0, 1.0, 1.0, 1.0], [0.1, 0.9, 1.0, 1.0], False),  # the first call does not count
        ([9.0, 1.0, 7.0, 7.0], [9.0, 3.0, 0.9, 3.0], False),  # the best of each does
    ],
)
def test_only_what_is_clearly_faster(one: list[float], all_threads: list[float], help_: bool) -> None:
    now = 0.0

    def taking(seconds: Iterator[float]) -> None:
        nonlocal now
        now += next(seconds)

    times = iter(one), iter(all_threads)
    assert all_threads_help(lambda: taking(times[0]), lambda: taking(times[1]), lambda: now) is help_
