"""`Found`: results of searches, put together from parts and read."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.decoding.found import Found, Hypothesis

ONE = Hypothesis((5, 6), (0, 3), (-0.5, -0.25), -1.5)
NOTHING = Hypothesis((), (), (), -0.5)


def test_hypotheses_go_in_and_come_out() -> None:
    each = [ONE, NOTHING, Hypothesis((7,), (2,), (-0.125,), -2.0)]
    assert Found.of(each).hypotheses() == each
    assert Found.of([]).hypotheses() == []
    assert all(type(number) is int for number in Found.of(each).hypotheses()[0].tokens)


def test_a_narrow_part_is_put_into_a_wide_result() -> None:
    found = Found.nothing(3, 4, 6)
    found.put(np.array([2, 0]), Found.of([ONE, NOTHING]))
    assert np.isneginf(found.scores).sum(axis=1).tolist() == [3, 4, 3]
    best = found.best(context_size=2).hypotheses()
    assert (best[2], best[0]) == (ONE, NOTHING)


@pytest.mark.parametrize(
    ("scores", "counts", "context_size", "place"),
    [
        ([-4.0, -4.5, -9.0], [2, 3, 4], 2, 1),  # -1, -0.9, -1.5 a token
        ([-4.0, -4.5, -9.0], [2, 3, 4], 1, 1),
        ([-4.0, -8.0, -np.inf], [0, 2, 90], 2, 0),  # as good a token: the first
        ([-np.inf, -3.0, -np.inf], [0, 1, 2], 2, 1),
    ],
)
def test_the_best_has_the_most_probable_tokens(
    scores: list[float], counts: list[int], context_size: int, place: int
) -> None:
    found = Found.nothing(1, 3, 4)
    found.scores[0], found.counts[0], found.tokens[0, :, 0] = scores, counts, [11, 12, 13]
    best = found.best(context_size)
    assert best.scores.shape == (1, 1)
    assert best.tokens[0, 0, 0] == 11 + place
    assert best.scores[0, 0] == scores[place]
