"""The best hypotheses of all streams' open segments, in arrays that many streams are added to at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moulin.decoding.network import Floats, Hypothesis, Ints

MAX_TOKENS = 512
"""A stream has at once; earlier ones go into a list of its own. A segment of 20 s says some 100."""


class OpenHypotheses:
    """Of each slot: tokens, the frames at which they were emitted, and their log-probabilities. Greedy search alone:
    what is said is never taken back.

    The operating system gives the memory when it is first written. Different slots may be used from different threads.
    """

    def __init__(self, slots: int, max_tokens: int = MAX_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._tokens = np.zeros((slots, max_tokens), dtype=np.int32)
        self._frames = np.zeros((slots, max_tokens), dtype=np.int32)
        self._log_probs = np.zeros((slots, max_tokens), dtype=np.float32)
        self._counts = np.zeros(slots, dtype=np.int64)
        self._scores = np.zeros(slots)
        self._earlier: dict[int, tuple[list[int], list[int], list[float]]] = {}

    def clear(self, slot: int) -> None:
        """Nothing has been said."""
        self._counts[slot] = self._scores[slot] = 0
        self._earlier.pop(slot, None)

    def append(
        self,
        slots: Ints,
        counts: NDArray[np.int32],
        tokens: NDArray[np.int32],
        frames: NDArray[np.int32],
        log_probs: Floats,
        scores: Floats,
    ) -> None:
        """`counts` [N] more `tokens` [N, n] of each of `slots`; what is beyond the count means nothing."""
        if (full := self._counts[slots] + tokens.shape[1] > self._max_tokens).any():
            for slot in slots[full].tolist():
                self._set_aside(slot)
        rows, columns = np.nonzero(np.arange(tokens.shape[1]) < counts[:, None])
        where, at = slots[rows], self._counts[slots[rows]] + columns
        self._tokens[where, at] = tokens[rows, columns]
        self._frames[where, at] = frames[rows, columns]
        self._log_probs[where, at] = log_probs[rows, columns]
        self._counts[slots] += counts
        self._scores[slots] += scores

    def count(self, slot: int) -> int:
        """How many tokens the slot has."""
        return int(self._counts[slot]) + len(self._earlier.get(slot, ([],))[0])

    def last_frames(self, slots: Ints) -> Ints:
        """The frames of the last tokens, -1 where there is none."""
        counts = self._counts[slots]
        last: Ints = np.where(counts > 0, self._frames[slots, counts - 1], -1)
        return last

    def hypothesis(self, slot: int) -> Hypothesis:
        tokens, frames, log_probs = self._all(slot)
        return Hypothesis(tuple(tokens), tuple(frames), tuple(log_probs), float(self._scores[slot]))

    def drop(self, slot: int, count: int) -> None:
        """Forget the first `count` tokens, and the score with them."""
        earlier = self._earlier.get(slot, ([], [], []))
        kept_earlier = len(earlier[0]) - count
        for of_slot in earlier:
            del of_slot[:count]
        if kept_earlier <= 0:
            self._earlier.pop(slot, None)
            self._forget(slot, -kept_earlier)
        self._scores[slot] = 0

    def _set_aside(self, slot: int) -> None:
        """Make room; the last token stays where `last_frames` finds it."""
        moved = int(self._counts[slot]) - 1
        earlier = self._earlier.setdefault(slot, ([], [], []))
        earlier[0].extend(self._tokens[slot, :moved].tolist())
        earlier[1].extend(self._frames[slot, :moved].tolist())
        earlier[2].extend(self._log_probs[slot, :moved].tolist())
        self._forget(slot, moved)

    def _forget(self, slot: int, count: int) -> None:
        """Move what is behind the first `count` tokens to the front."""
        kept = int(self._counts[slot]) - count
        for of_all in (self._tokens, self._frames, self._log_probs):
            of_all[slot, :kept] = of_all[slot, count : count + kept].copy()
        self._counts[slot] = kept

    def _all(self, slot: int) -> tuple[list[int], list[int], list[float]]:
        count = self._counts[slot]
        earlier = self._earlier.get(slot, ([], [], []))
        return (
            earlier[0] + self._tokens[slot, :count].tolist(),
            earlier[1] + self._frames[slot, :count].tolist(),
            earlier[2] + self._log_probs[slot, :count].tolist(),
        )
