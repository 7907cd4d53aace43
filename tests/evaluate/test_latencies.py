"""Distribution and timeline of latencies that are known."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.evaluate.latencies import Latencies
from moulin.evaluate.results.setup import Percentiles


def test_percentiles_distribution_and_timeline() -> None:
    """Twice as slow in the second half of ten seconds."""
    due = np.arange(0, 10, 0.01)
    taken = np.where(due < 5, 0.1, 0.2)
    latencies = Latencies.between(list(zip(due + 100, due + 100 + taken, strict=True)), first_sec=100)
    found = latencies.percentiles()
    assert found.p50 == pytest.approx(150, abs=51)
    assert (found.p90, found.p95, found.p99, found.max) == (200, 200, 200, 200)
    distribution = latencies.distribution()
    assert len(distribution) == 101
    assert (distribution[0], distribution[49], distribution[51], distribution[100]) == (100, 100, 200, 200)
    timeline = latencies.timeline(10)
    assert [row[0] for row in timeline] == [second + 0.5 for second in range(10)]
    assert [row[2] for row in timeline] == [100] * 5 + [200] * 5
    assert latencies.since(5).percentile(0) == pytest.approx(200)


def test_a_long_run_has_forty_parts() -> None:
    due = np.arange(0, 400, 0.5)
    assert len(Latencies(due, due).timeline(400)) == 40


def test_nothing_is_none_and_no_error() -> None:
    nothing = Latencies.between([])
    assert nothing.percentiles() == Percentiles(None, None, None, None, None)
    assert nothing.distribution() == []
    assert nothing.timeline(10) == []
