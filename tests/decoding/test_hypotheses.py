"""`OpenHypotheses` against a plain twin with lists."""

from __future__ import annotations

import random

import numpy as np
import pytest

from moulin.decoding.found import Found, Hypothesis
from moulin.decoding.hypotheses import OpenHypotheses

SLOTS, PLACES, CONTEXT_SIZE, FRAMES = 4, 3, 2, 5


@pytest.mark.parametrize("max_tokens", [12, 512], ids=["tokens are set aside", "all in the arrays"])
@pytest.mark.parametrize("seed", range(3))
def test_beams_beside_lists(max_tokens: int, seed: int) -> None:
    """Streams go on, are cut, and begin anew, in batches of any streams."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    ours = OpenHypotheses(SLOTS, PLACES, CONTEXT_SIZE, max_tokens)
    lists: list[list[list[tuple[int, int, float]]]] = [[[] for _ in range(PLACES)] for _ in range(SLOTS)]
    scores = np.zeros((SLOTS, PLACES))
    best = [0] * SLOTS
    alone: set[int] = set()  # slots with one hypothesis, in the first place

    def hypothesis(slot: int) -> Hypothesis:
        said = lists[slot][best[slot]]
        tokens, frames, log_probs = zip(*said, strict=True) if said else ((), (), ())
        return Hypothesis(tuple(tokens), tuple(frames), tuple(log_probs), scores[slot][best[slot]])

    for _ in range(60):
        slots = np.array(rng.sample(range(SLOTS), rng.randint(1, SLOTS)))
        size = (len(slots), PLACES)
        origins = numbers.integers(0, PLACES, size).astype(np.int32)
        origins[[slot in alone for slot in slots.tolist()]] = 0
        alone.difference_update(slots.tolist())
        counts = numbers.integers(0, FRAMES + 1, size).astype(np.int32)
        tokens = numbers.integers(1, 500, (*size, FRAMES)).astype(np.int32)
        frames = numbers.integers(0, 99, (*size, FRAMES)).astype(np.int32)
        first_frames = numbers.integers(0, 9999, len(slots))
        log_probs = numbers.normal(size=(*size, FRAMES)).astype(np.float32)
        each = -numbers.random(size)
        each[:, rng.randrange(PLACES)] = -np.inf
        # Hypotheses never extend a place without a hypothesis.
        origins = np.where(np.isneginf(scores[slots])[np.arange(len(slots))[:, None], origins], -1, origins)
        origins = np.where(origins < 0, scores[slots].argmax(axis=1)[:, None], origins).astype(np.int32)
        ours.advance(slots, Found(origins, counts, tokens, frames, log_probs, each), first_frames)
        frames = frames + first_frames[:, None, None]
        for row, slot in enumerate(slots.tolist()):
            lists[slot] = [
                lists[slot][origins[row, place]]
                + [
                    (int(tokens[row, place, i]), int(frames[row, place, i]), float(log_probs[row, place, i]))
                    for i in range(counts[row, place])
                ]
                for place in range(PLACES)
            ]
            scores[slot] = each[row]
            lengths = np.array([len(said) + CONTEXT_SIZE for said in lists[slot]])
            best[slot] = int((each[row] / lengths).argmax())
        slot = rng.randrange(SLOTS)
        if rng.random() < 0.3:
            count = rng.randint(0, len(lists[slot][best[slot]]))
            wanted = best[slot] if ours.decided[slot] < 0 else ours.decided[slot]
            ours.drop(slot, count)
            alone.add(slot)
            lists[slot] = [lists[slot][best[slot]][count:]] * PLACES
            best[slot], scores[slot] = 0, 0
            assert (ours.decided[slot], ours.kept[slot]) == (wanted, len(lists[slot][0]))
            ours.decided[slot] = -1
        elif rng.random() < 0.2:
            ours.clear(slot)
            lists[slot], best[slot], scores[slot] = [[] for _ in range(PLACES)], 0, 0
        for slot in range(SLOTS):
            assert ours.hypothesis(slot) == hypothesis(slot)
            assert ours.count(slot) == len(lists[slot][best[slot]])
        last = [said[-1][1] if (said := lists[slot][best[slot]]) else -1 for slot in range(SLOTS)]
        assert ours.last_frames(np.arange(SLOTS)).tolist() == last


def test_greedy_search_beside_a_beam() -> None:
    """The greedy hypothesis is in the first place, the other places have none; early tokens are set aside."""
    ours = OpenHypotheses(2, PLACES, CONTEXT_SIZE, max_tokens=8)
    slots = np.array([1])
    for number in range(5):
        found = Found.nothing(1, PLACES, 4)
        found.counts[0, 0], found.scores[0, 0] = 3, -1.5 * (number + 1)
        found.tokens[0, 0] = np.arange(4) + 10 * number
        found.frames[0, 0] = np.arange(4)
        ours.advance(slots, found, np.array([4 * number]))
    said = ours.hypothesis(1)
    assert said.tokens == tuple(10 * number + index for number in range(5) for index in range(3))
    assert said.frames == tuple(4 * number + index for number in range(5) for index in range(3))
    assert said.score == -7.5
    ours.drop(1, 4)
    assert ours.hypothesis(1).tokens == said.tokens[4:]
    ours.drop(1, 11)
    assert ours.hypothesis(1) == Hypothesis((), (), (), 0.0)
    assert ours.hypothesis(0) == Hypothesis((), (), (), 0.0)
