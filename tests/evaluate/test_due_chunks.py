"""Whose turn it is, by a clock that the test holds."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.evaluate.due_chunks import DueChunks


def test_whose_turn_it_is() -> None:
    dues = DueChunks(np.array([0.0, 0.1, 0.2, 0.3]), 0.4, max_batch=3)
    first = dues.take(0.15)
    assert first is not None
    assert (first.round, first.first, first.last) == (0, 0, 2)
    assert dues.take(0.15) is None
    assert dues.wait_sec(0.15) == pytest.approx(0.05)
    # Late: the rest of the round, then those of the next whose step is not under way any more.
    rest = dues.take(0.75)
    assert rest is not None
    assert (rest.round, rest.first, rest.last) == (0, 2, 4)
    assert dues.take(0.75) is None
    dues.have_stepped(first)
    again = dues.take(0.75)
    assert again is not None
    assert (again.round, again.first, again.last) == (1, 0, 2)
    np.testing.assert_allclose(again.sec, [0.4, 0.5])
    dues.have_stepped(rest)
    dues.have_stepped(again)
    much_later = dues.take(3.0)
    assert much_later is not None
    assert (much_later.round, much_later.first, much_later.last) == (1, 2, 4)
    dues.have_stepped(much_later)
    as_many_as_may_be = dues.take(3.0)
    assert as_many_as_may_be is not None
    assert (as_many_as_may_be.round, as_many_as_may_be.first, as_many_as_may_be.last) == (2, 0, 3)
