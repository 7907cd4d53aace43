"""n-gram models from text by interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998), as KenLM's lmplz does.

The highest order counts how often an n-gram occurs, a lower one behind how many different words; n-grams that begin
with `<s>` have nothing before them and keep their counts. From each count a discount is taken, and what that leaves to
a context is given to the words by the order below, in the end to all words alike, `<unk>` among them. So the
probabilities of every context sum to 1.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from moulin.arrays import Doubles, Ints
from moulin.errors import OptionsError
from moulin.language_models.ngrams import BEGIN, END, UNKNOWN, Level, Ngrams

_NEVER = -99 * np.log(10)
"""The log-probability of `<s>`, which nothing is followed by, as files have it."""
_USUAL_DISCOUNTS = (0.5, 1.0, 1.5)
"""Where a text is so small or regular that its counts give none, as with lmplz --discount_fallback."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """The different n-grams of one order."""

    words: Ints
    """[M, k]"""
    contexts: Ints
    """[M]: the n-gram of the order below that is all but the last word."""
    ends: Ints
    """[M]: the one that is all but the first word."""
    counts: Ints
    """[M]"""


def kneser_ney(sentences: Iterable[Sequence[str]], order: int) -> Ngrams:
    """A model of `order` 1 to 10 from sentences of words or tokens. Raises OptionsError where there is no text."""
    ids = {BEGIN: 0, END: 1, UNKNOWN: 2}
    flat, lengths = array("q"), array("q")
    for sentence in sentences:
        if sentence:
            flat.append(0)
            flat.extend(ids.setdefault(word, len(ids)) for word in sentence)
            flat.append(1)
            lengths.append(len(sentence) + 2)
    if not flat:
        raise OptionsError("Expected text to count n-grams in, got none")
    counted = _counted(np.frombuffer(flat, np.int64), np.frombuffer(lengths, np.int64), order, len(ids))

    words = len(ids)
    below = np.full(words, 1 / (words - 1))  # all words but <s> alike
    levels: list[tuple[Ints, Doubles, Doubles]] = []
    for number, of_order in enumerate(counted):
        contexts = len(counted[number - 1].words) if number else 1
        discounts = _discounts(of_order.counts)[np.minimum(of_order.counts, 3)]
        totals = np.bincount(of_order.contexts, of_order.counts, contexts)
        left = np.bincount(of_order.contexts, discounts, contexts) / np.maximum(totals, 1)
        own = (of_order.counts - discounts) / totals[of_order.contexts]
        found = own + left[of_order.contexts] * below[of_order.ends]
        if number:
            levels[-1] = (*levels[-1][:2], np.where(totals > 0, left, 1.0))
        levels.append((of_order.words, found, np.ones(len(found))))
        below = found
    names = list(ids)
    return Ngrams(names, [_level(*level) for level in levels])


def _level(words: Ints, probabilities: Doubles, backoffs: Doubles) -> Level:
    log_probs = np.log(np.maximum(probabilities, 1e-300))
    log_probs[(words == 0).all(axis=1)] = _NEVER
    weights = np.log(np.maximum(backoffs, 1e-300))
    return Level(words.astype(np.int32), log_probs.astype(np.float32), weights.astype(np.float32))


def _counted(flat: Ints, lengths: Ints, order: int, words: int) -> list[_Counted]:
    """The n-grams of each order up to `order` in sentences [<s> ... </s>] of `lengths` that lie one after another in
    `flat`, with the counts that the order needs."""
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(flat))  # words from here to the sentence's end
    at, found = flat, []
    spelt = np.arange(words)[:, None]
    # Unigrams: all words, also <unk>, which no text has.
    of_order = [(spelt, np.zeros(words, np.int64), np.zeros(words, np.int64), np.bincount(flat, minlength=words))]
    for length in range(2, order + 1):
        begins = np.flatnonzero(left >= length)
        keys = at[begins] * words + flat[begins + length - 1]
        different, first, which, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        representatives = begins[first]
        contexts = different // words
        spelt = np.concatenate([spelt[contexts], (different % words)[:, None]], axis=1)
        of_order.append((spelt, contexts, at[representatives + 1], counts))
        at = np.full(len(flat), -1)
        at[begins] = which
    for number, (spelt, contexts, ends, counts) in enumerate(of_order):
        if number + 1 < len(of_order):
            behind = np.bincount(of_order[number + 1][2], minlength=len(spelt))
            counts = np.where(spelt[:, 0] == 0, counts, behind)
        if not number:
            counts = np.where(spelt[:, 0] == 0, 0, counts)  # nothing is followed by <s>
            ends = spelt[:, 0]
        found.append(_Counted(spelt, contexts, ends, counts))
    return found


def _discounts(counts: Ints) -> Doubles:
    """The discounts [4] of counts 0, 1, 2, and 3 or more."""
    ones, twos, threes, fours = (int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if not (ones and twos and threes and fours):
        return np.array([0.0, *_USUAL_DISCOUNTS])
    share = ones / (ones + 2 * twos)
    found = [1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes]
    if not all(0 <= discount <= count for count, discount in enumerate(found, 1)):
        return np.array([0.0, *_USUAL_DISCOUNTS])
    return np.array([0.0, *found])
