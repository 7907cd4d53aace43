"""Counts and rates of a job, on a clock of the test's."""

from __future__ import annotations

from typing import Any

import pytest

from moulin.bulk.progress import Counted
from moulin.bulk.schema import failed_row, transcribed_row, transcribed_table
from moulin.transcript import Transcript


class Nowhere:
    written = 3

    def add(self, transcribed: Any) -> None: ...
    def write_if_old(self) -> None: ...
    def write(self) -> None: ...


def table(good: int, bad: int = 0) -> Any:
    heard = Transcript("A", (), 36.0)
    rows = [transcribed_row(str(n), "a.wav", heard) for n in range(good)]
    return transcribed_table(rows + [failed_row(f"bad-{n}", "b.wav", "no") for n in range(bad)])


def test_the_rate_is_that_since_the_first_transcript() -> None:
    now = [100.0]
    counted = Counted(Nowhere(), total=1000, done=400, failed=7, clock=lambda: now[0])
    now[0] += 50  # the model loads
    before = counted.state()
    assert (before.done, before.failed, before.recordings_a_sec, before.left_sec) == (400, 7, 0.0, None)
    counted.add(table(10))
    for _ in range(10):
        now[0] += 2
        counted.add(table(9, bad=1))
        counted.state()
    state = counted.state()
    assert (state.total, state.done, state.failed, state.parts) == (1000, 510, 17, 3)
    assert state.audio_hours == pytest.approx(1.0)
    assert state.recordings_a_sec == pytest.approx(5.0)
    assert state.times_real_time == pytest.approx(9 * 36 / 2)
    assert state.left_sec == pytest.approx(490 / 5)
    assert state.elapsed_sec == 70.0
    assert state.to_dict()["audio_hours"] == 1.0


def test_the_rate_forgets_what_was_minutes_ago() -> None:
    now = [0.0]
    counted = Counted(Nowhere(), total=10_000, done=0, failed=0, clock=lambda: now[0])
    for seconds in range(300):
        now[0] = float(seconds)
        if seconds < 150:
            counted.add(table(10))
        counted.state()
    assert counted.state().recordings_a_sec == 0.0
