"""The hypotheses of open streams, in arrays that grow for many streams at once."""

from __future__ import annotations

import numpy as np

from moulin.arrays import Bools, Floats, Ints, Ints32
from moulin.decoding.found import Found, Hypothesis
from moulin.decoding.row_graphs import Graphs, held_behind

MAX_TOKENS = 512
"""Tokens of a hypothesis that the arrays hold; earlier ones are in a list. A segment of 20 s has some 100."""


class OpenHypotheses:
    """The hypotheses of each slot's open segment, in `places`: tokens, the frames at which they were emitted, and their
    log-probabilities. Greedy search uses the first place alone.

    All slots' first places lie together, then all second ones: the operating system gives memory when it is first
    written, often in large pages, and most places are never used. Different slots may be used from different threads.
    """

    def __init__(self, slots: int, places: int, context_size: int | None, max_tokens: int = MAX_TOKENS) -> None:
        """`context_size` is the decoder's: the best hypothesis is chosen as in `Found.best`. None is for a CTC head, of
        whose hypotheses the most probable is the best, whatever its length."""
        self._slots, self._context_size, self._max_tokens = slots, context_size, max_tokens
        rows = slots * places  # place * slots + slot
        self._tokens = np.zeros((rows, max_tokens), dtype=np.int32)
        self._frames = np.zeros((rows, max_tokens), dtype=np.int32)
        self._log_probs = np.zeros((rows, max_tokens), dtype=np.float32)
        self._counts = np.zeros(rows, dtype=np.int64)
        self._scores = np.full(rows, -np.inf)
        self._scores[:slots] = 0
        self._earlier: dict[int, tuple[list[int], list[int], list[float]]] = {}
        self._num_earlier = np.zeros(rows, dtype=np.int64)
        self._best = np.zeros(slots, dtype=np.int64)  # place
        self.by_score = np.full(slots, context_size is None)
        """[slots]: whether the most probable hypothesis is the best, whatever its length."""
        self.decided = np.full(slots, -1, dtype=np.int32)
        """[slots]: `Continuation.decided` for the next step; to be set to -1 after it."""
        self.kept = np.zeros(slots, dtype=np.int32)
        """[slots]: `Continuation.kept` for the next step; the first tokens of the open segment, which the one before
        has left over."""

    def clear(self, slot: int) -> None:
        """Forget all hypotheses of `slot`."""
        rows = slice(slot, None, self._slots)
        self._counts[rows] = self._num_earlier[rows] = 0
        self._scores[rows] = -np.inf
        self._scores[slot] = 0
        if self._earlier:
            for row in range(slot, len(self._counts), self._slots):
                self._earlier.pop(row, None)
        self._best[slot] = self.kept[slot] = 0
        self.decided[slot] = -1

    def advance(self, slots: Ints, found: Found, first_frames: Ints) -> Bools:
        """Extend the hypotheses of `slots` [N], all different, by what a search has `found`. `first_frames` [N] are the
        numbers, within each stream, of the first frame that was searched. Returns whether each best hypothesis has
        changed, bool [N]."""
        places = found.origins.shape[1]
        if places == 1:
            # Nothing moves, and the first place is the best.
            frames = found.frames[:, 0] + first_frames[:, None]
            self._append(slots, found.counts[:, 0], found.tokens[:, 0], frames, found.log_probs[:, 0])
            self._scores[slots] = found.scores[:, 0]
            gained: Bools = found.counts[:, 0] > 0
            return gained
        alive = ~np.isneginf(found.scores)
        every = slots[:, None] + np.arange(places) * self._slots
        rows, sources = every[alive], (slots[:, None] + found.origins * self._slots)[alive]
        moved = rows != sources
        if moved.any():
            self._copy(rows[moved], sources[moved])
        frames = (found.frames + first_frames[:, None, None])[alive]
        self._append(rows, found.counts[alive], found.tokens[alive], frames, found.log_probs[alive])
        self._scores[every] = found.scores
        before, each = self._best[slots], np.arange(len(slots))
        best = (found.scores / self._lengths(every, slots)).argmax(axis=1)
        self._best[slots] = best
        changed: Bools = (found.counts[each, best] > 0) | (found.origins[each, best] != before)
        return changed

    def count(self, slot: int) -> int:
        """The number of tokens of the slot's best hypothesis."""
        row = self._row(slot)
        return int(self._counts[row] + self._num_earlier[row])

    def last_frames(self, slots: Ints) -> Ints:
        """The frames of the last tokens of the best hypotheses, -1 where there is none."""
        rows = slots + self._best[slots] * self._slots
        counts = self._counts[rows]
        last: Ints = np.where(counts > 0, self._frames[rows, counts - 1], -1)
        return last

    def hypothesis(self, slot: int) -> Hypothesis:
        """The best hypothesis of `slot`."""
        return self._in_row(self._row(slot))

    def ranked(self, slot: int, places: int) -> list[Hypothesis]:
        """The hypotheses in the first `places` of `slot`, the best first."""
        rows = np.arange(places) * self._slots + slot
        scores = self._scores[rows] / self._lengths(rows[None], np.array([slot]))[0]
        order = np.argsort(-scores, kind="stable")
        return [self._in_row(int(row)) for row in rows[order] if np.isfinite(self._scores[row])]

    def _lengths(self, rows: Ints, slots: Ints) -> Ints:
        """What the scores of `rows` [N, P] of `slots` [N] are divided by when they are compared."""
        tokens = self._counts[rows] + self._num_earlier[rows] + (self._context_size or 0)
        return np.where(self.by_score[slots, None], 1, tokens)

    def _in_row(self, row: int) -> Hypothesis:
        count = self._counts[row]
        earlier = self._earlier.get(row, ([], [], []))
        return Hypothesis(
            (*earlier[0], *self._tokens[row, :count].tolist()),
            (*earlier[1], *self._frames[row, :count].tolist()),
            (*earlier[2], *self._log_probs[row, :count].tolist()),
            float(self._scores[row]),
        )

    def take_back(self, slot: int, graphs: Graphs, places: int) -> None:
        """Choose the best of the hypotheses in the first `places` of `slot` without the bonuses of phrases that have
        begun and are not complete."""
        rows = np.arange(places) * self._slots + slot
        rows = rows[np.isfinite(self._scores[rows])]
        kept = int(self.kept[slot])  # phrases have begun anew behind these tokens
        self._scores[rows] -= held_behind(graphs, [self._in_row(row).tokens[kept:] for row in rows.tolist()])
        if len(rows):
            best = (self._scores[rows] / self._lengths(rows[None], np.array([slot]))[0]).argmax()
            self._best[slot] = rows[best] // self._slots

    def drop(self, slot: int, count: int) -> None:
        """Keep only the best hypothesis, and forget its first `count` tokens and its score."""
        row, best = slot, int(self._best[slot])  # into the first place
        if best:
            self._copy(np.array([row]), np.array([self._row(slot)]))
        earlier = self._earlier.get(row, ([], [], []))
        from_array = max(0, count - len(earlier[0]))
        for of_row in earlier:
            del of_row[:count]
        self._num_earlier[row] = len(earlier[0])
        self._forget(row, from_array)
        self._scores[row :: self._slots] = -np.inf
        self._scores[row] = 0
        self._best[slot] = 0
        # drop() may run twice before a step; the search still uses the old numbering, so keep the first choice.
        if self.decided[slot] < 0:
            self.decided[slot] = best
        self.kept[slot] = self.count(slot)

    def _row(self, slot: int) -> int:
        return slot + int(self._best[slot]) * self._slots

    def _append(
        self,
        rows: Ints,
        counts: Ints32,
        tokens: Ints32,
        frames: Ints32,
        log_probs: Floats,
    ) -> None:
        if not counts.any():
            return
        if (full := self._counts[rows] + tokens.shape[1] > self._max_tokens).any():
            for row in rows[full].tolist():
                self._set_aside(row)
        some, columns = np.nonzero(np.arange(tokens.shape[1]) < counts[:, None])
        where, at = rows[some], self._counts[rows[some]] + columns
        self._tokens[where, at] = tokens[some, columns]
        self._frames[where, at] = frames[some, columns]
        self._log_probs[where, at] = log_probs[some, columns]
        self._counts[rows] += counts

    def _copy(self, rows: Ints, sources: Ints) -> None:
        """Copy row `sources[i]` to `rows[i]`; all sources are read first."""
        length = int(self._counts[sources].max(initial=0))
        for of_all in (self._tokens, self._frames, self._log_probs):
            of_all[rows, :length] = of_all[sources, :length]
        for of_each in (self._counts, self._num_earlier, self._scores):
            of_each[rows] = of_each[sources]
        if self._earlier:
            copies = [self._earlier.get(source) for source in sources.tolist()]
            for row, earlier in zip(rows.tolist(), copies, strict=True):
                self._earlier.pop(row, None)
                if earlier is not None:
                    self._earlier[row] = earlier[0].copy(), earlier[1].copy(), earlier[2].copy()

    def _set_aside(self, row: int) -> None:
        """Move all tokens but the last to the lists; `last_frames` reads the last one from the arrays."""
        moved = int(self._counts[row]) - 1
        earlier = self._earlier.setdefault(row, ([], [], []))
        earlier[0].extend(self._tokens[row, :moved].tolist())
        earlier[1].extend(self._frames[row, :moved].tolist())
        earlier[2].extend(self._log_probs[row, :moved].tolist())
        self._num_earlier[row] = len(earlier[0])
        self._forget(row, moved)

    def _forget(self, row: int, count: int) -> None:
        """Remove the first `count` tokens from the arrays."""
        kept = int(self._counts[row]) - count
        for of_all in (self._tokens, self._frames, self._log_probs):
            of_all[row, :kept] = of_all[row, count : count + kept].copy()
        self._counts[row] = kept
