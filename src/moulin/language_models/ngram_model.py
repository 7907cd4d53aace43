"""An n-gram language model with back-off as sorted arrays, for many lookups at once.

A state is the longest end of a history that the model has n-grams for. States are the n-grams themselves, numbered by
their order, then by the state before their last word, then by that word; the state of no words is 0, and word w alone
is 1 + w. `moulin.language_models.plain_ngrams` defines the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from moulin.arrays import Bools, Doubles, Floats, Ints, Ints32
from moulin.errors import BundleError
from moulin.language_models.ngrams import BEGIN, Ngrams
from moulin.quoting import quoted

_WORD_BITS = 24
_NO_KEY = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class NgramModel:
    """A model with S states. Each array has one value a state."""

    words: tuple[str, ...]
    order: int
    keys: Ints
    """[S + 1]: of each state the one before its last word, and that word, ascending; one more that no state has."""
    log_probs: Floats
    """[S]: of the state's last word after the others, a natural logarithm."""
    backoffs: Floats
    """[S]"""
    fails: Ints32
    """[S]: the longest proper end of the state that is a state too."""
    num_histories: int
    """The first so many states may be followed by a word; the others are of the highest order."""

    @classmethod
    def of(cls, ngrams: Ngrams) -> Self:
        """Raises BundleError for an n-gram that is there twice, or whose beginning is not there."""
        sizes = [1, *(len(level.words) for level in ngrams.levels)]
        total = sum(sizes)
        keys, fails = np.full(total + 1, _NO_KEY), np.zeros(total, np.int32)
        log_probs, backoffs = np.zeros(total, np.float32), np.zeros(total, np.float32)
        keys[0], end = -1, 1
        for order, level in enumerate(ngrams.levels, 1):
            begin, end = end, end + len(level.words)
            parents = np.zeros(len(level.words), np.int64)
            for at in range(order - 1):
                parents = _children(keys, parents, level.words[:, at].astype(np.int64))
                if (missing := parents < 0).any():
                    raise BundleError(
                        f"Expected the beginning {_named(ngrams, level.words[missing.argmax(), : order - 1])} of "
                        f"the {order}-gram {_named(ngrams, level.words[missing.argmax()])} among the "
                        f"{order - 1}-grams, as back-off needs it"
                    )
            last = level.words[:, -1].astype(np.int64)
            of_level = _keys(parents, last)
            by_key = np.argsort(of_level, kind="stable")
            keys[begin:end] = of_level[by_key]
            if (twice := np.flatnonzero(keys[begin : end - 1] == keys[begin + 1 : end])).size:
                spelt = level.words[by_key[twice[0]]]
                raise BundleError(f"Expected each {order}-gram once, got {_named(ngrams, spelt)} twice")
            log_probs[begin:end], backoffs[begin:end] = level.log_probs[by_key], level.backoffs[by_key]
            if order > 1:
                fails[begin:end] = _ends(keys, fails, fails[parents[by_key]].astype(np.int64), last[by_key])
        return cls(tuple(ngrams.words), ngrams.order, keys, log_probs, backoffs, fails, total - sizes[-1])

    def __len__(self) -> int:
        """The number of n-grams."""
        return len(self.log_probs) - 1

    @property
    def size_bytes(self) -> int:
        return sum(array.nbytes for array in (self.keys, self.log_probs, self.backoffs, self.fails))

    @cached_property
    def ids(self) -> dict[str, int]:
        """The numbers of the words."""
        return {word: number for number, word in enumerate(self.words)}

    @cached_property
    def start(self) -> int:
        """The state at the beginning of a text: behind `<s>`, where the model has that."""
        begin = self.ids.get(BEGIN)
        return 0 if begin is None else self.history(np.array([1 + begin]))[0]

    @property
    def parents_and_words(self) -> tuple[Ints, Ints]:
        """Of each n-gram, the states but that of no words: the state before its last word, and that word, [S - 1]
        each."""
        of_ngrams = self.keys[1:-1]
        return of_ngrams >> _WORD_BITS, of_ngrams & ((1 << _WORD_BITS) - 1)

    def step(self, states: Ints, words: Ints) -> tuple[Doubles, Ints]:
        """The log-probabilities, float64 [M], of `words` [M] after the histories `states` [M], and the next states
        [M]."""
        total, arrived = np.zeros(len(states)), np.zeros(len(states), np.int64)
        lost, here = np.arange(len(states)), states
        while lost.size:
            child = _children(self.keys, here, words[lost])
            found = child >= 0
            arrived[lost[found]] = child[found]
            lost, here = lost[~found], here[~found]
            total[lost] += self.backoffs[here]
            here = self.fails[here].astype(np.int64)
        return total + self.log_probs[arrived], self.history(arrived)

    def history(self, states: Ints) -> Ints:
        """What the next word sees of `states` [M]: of those of the highest order all but their first word."""
        going_on: Bools = states < self.num_histories
        return np.where(going_on, states, self.fails[states])


def _keys(states: Ints, words: Ints) -> Ints:
    keys: Ints = (states << _WORD_BITS) | words
    return keys


def _children(keys: Ints, states: Ints, words: Ints) -> Ints:
    """The n-gram of each of `states` with its word behind, -1 for none."""
    wanted = _keys(states, words)
    found = keys.searchsorted(wanted)
    found[keys[found] != wanted] = -1
    return found


def _ends(keys: Ints, fails: Ints32, states: Ints, words: Ints) -> Ints:
    """The longest ends of histories in `states` with `words` behind."""
    arrived = np.zeros(len(states), np.int64)
    lost, here = np.arange(len(states)), states
    while lost.size:
        child = _children(keys, here, words[lost])
        found = child >= 0
        arrived[lost[found]] = child[found]
        lost, here = lost[~found], fails[here[~found]].astype(np.int64)
    return arrived


def _named(ngrams: Ngrams, spelt: Ints32) -> str:
    return quoted(" ".join(ngrams.words[word] for word in spelt.tolist()))
