"""Where words begin and end in many whole utterances at once, on arrays: `word_times.word_spans` of each of them.

A card hears tens of thousands of words a second, and their times are found by one interpreter. A word begins at the
end of the one before at the earliest, and that end does not depend on where its own word began: so all ends are found
first, then all beginnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from moulin.arrays import Bools, Ints
from moulin.audio.runs import starts_of
from moulin.engine.word_times import (
    CONTRAST,
    LOUDEST,
    PAUSE,
    QUIET,
    REACH,
    REACH_BACK,
    SHARE,
    SILENCE,
    USUAL,
    Span,
    divided,
)

_NEVER = np.iinfo(np.int64).max
Levels = NDArray[np.uint8]


def word_spans_of_all(emitted: Sequence[Sequence[Span]], levels: Sequence[bytes]) -> list[list[Span]]:
    """`word_spans(emitted[i], Sound(levels[i]))` for each utterance i: the frames that each of its words spans."""
    counts = np.array([len(words) for words in emitted], dtype=np.int64)
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(emitted)), np.int64).reshape(-1, 2)
    if not len(flat):
        return [[] for _ in emitted]
    utterances = np.repeat(np.arange(len(emitted)), counts)
    # Words of one token share its span: a group.
    begins_group = np.ones(len(flat), np.bool_)
    begins_group[1:] = (flat[1:, 0] != flat[:-1, 0]) | (utterances[1:] != utterances[:-1])
    heads = np.flatnonzero(begins_group)
    sizes = np.diff(heads, append=len(flat))
    begins, ends = _Groups(flat[heads, 0], flat[heads + sizes - 1, 1], utterances[heads], levels).spans()
    spans = list(zip(begins.tolist(), ends.tolist(), strict=True))
    if len(spans) < len(flat):
        spans = [part for span, size in zip(spans, sizes.tolist(), strict=True) for part in divided(*span, size)]
    edges = [0, *np.cumsum(counts).tolist()]
    return [spans[begin:end] for begin, end in pairwise(edges)]


class _Groups:
    """G groups of words, in order: the frames [G] of their first and last tokens, counted in their own utterances."""

    def __init__(self, first: Ints, last: Ints, utterances: Ints, levels: Sequence[bytes]) -> None:
        self._first, self._last = first, last
        lengths = np.array([len(one) for one in levels], dtype=np.int64)
        self._last_window = int(lengths.sum())
        self._levels: Levels = np.frombuffer(b"".join(levels) + bytes(REACH), np.uint8)
        self._known, self._offset = lengths[utterances], starts_of(lengths)[utterances]
        self._has_next = np.zeros(len(first), np.bool_)
        self._has_next[:-1] = utterances[1:] == utterances[:-1]
        self._following = np.where(self._has_next, np.roll(first, -1), _NEVER)

    def spans(self) -> tuple[Ints, Ints]:
        """The first frame of each group and the frame behind its last: two arrays [G]."""
        ends = self._ends()
        return self._begins(ends), ends

    def _ends(self) -> Ints:
        first, last, following = self._first, self._last, self._following
        stop = np.minimum(np.minimum(self._known, last + REACH), following)
        frames, around = self._window(last, stop, REACH)
        word_begin, word_end = np.maximum(first - SILENCE, 0), np.minimum(stop, last + LOUDEST)
        threshold = _thresholds(self._loudest(word_begin, word_end), word_end > word_begin, frames, around)
        quiet = np.zeros((len(first), REACH + PAUSE), np.bool_)
        quiet[:, :REACH] = around & (frames <= threshold.astype(np.int16)[:, None])
        # Silence follows the audio, and the next word counts as the end of a pause.
        is_silent = (stop == following) | (stop == self._known)
        beyond = np.arange(REACH + PAUSE, dtype=np.int8) - (stop - last).clip(0, REACH).astype(np.int8)[:, None]
        quiet |= is_silent[:, None] & (beyond >= 0) & (beyond < PAUSE)
        pauses = quiet[:, : REACH + 1].copy()
        for shift in range(1, PAUSE):
            pauses &= quiet[:, shift : shift + REACH + 1]
        at = np.maximum(last + pauses.argmax(axis=1), last + 1)
        found = (threshold >= 0) & pauses.any(axis=1)
        ends: Ints = np.minimum(np.where(found, at, last + USUAL), following)
        return ends

    def _begins(self, ends: Ints) -> Ints:
        first = self._first
        before = np.where(np.roll(self._has_next, 1), np.roll(ends, 1), 0)
        start = np.maximum(np.maximum(before, first - REACH_BACK), 0)
        frames, around = self._window(start, np.minimum(first + 1, self._known), REACH_BACK + 1)
        word_end = np.minimum(np.minimum(ends, first + LOUDEST), self._known)
        threshold = _thresholds(self._loudest(start, word_end), word_end > start, frames, around)
        quiet = around & (frames <= threshold.astype(np.int16)[:, None])
        silences = quiet[:, 1:] & quiet[:, :-1]
        behind_the_last = start + silences.shape[1] - silences[:, ::-1].argmax(axis=1) - 1 + SILENCE
        begins: Ints = np.where(silences.any(axis=1), np.minimum(first, behind_the_last), first)
        return np.maximum(before, begins)

    def _window(self, begin: Ints, end: Ints, most: int) -> tuple[Levels, Bools]:
        """The levels [G, most] from `begin` on, and which of them are before `end`."""
        within: Bools = np.arange(most, dtype=np.int8) < (end - begin).clip(0, most).astype(np.int8)[:, None]
        return sliding_window_view(self._levels, most)[(self._offset + begin).clip(max=self._last_window)], within

    def _loudest(self, begin: Ints, end: Ints) -> Ints:
        """The largest level from `begin` to before `end`; anything where there is none between."""
        edges = np.stack([begin, np.maximum(begin, end)], axis=1) + self._offset[:, None]
        return np.maximum.reduceat(self._levels, edges.ravel().clip(max=self._last_window))[::2].astype(np.int64)


def _thresholds(loudest: Ints, is_word: Bools, frames: Levels, around: Bools) -> Ints:
    """The levels [G] up to which frames are quiet; -1 where the word and what is `around` it are too much alike."""
    quietest = np.where(around, frames, np.uint8(255)).min(axis=1).astype(np.int64)
    contrast = loudest - quietest
    thresholds = np.maximum(loudest - QUIET, quietest + (SHARE * contrast).astype(np.int64))
    known: Bools = is_word & around.any(axis=1) & (contrast >= CONTRAST)
    return np.where(known, thresholds, -1)
