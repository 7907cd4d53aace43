"""Walks of a kernel's hypotheses through automata: hotwords, and n-grams with back-off.

`moulin.gpu.automata.Automaton` says what the tables mean, and `moulin.gpu.arena` puts them there. The plain twins are
`ContextGraphs.advance` and `NgramModel.step`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class WordTables(NamedTuple):
    """How V tokens spell W words, for n-grams of words: see `moulin.decoding.language_model.WordModel`."""

    begins: Tensor
    """int32 [V]: 1 where a token begins a word, else 0."""
    hashes: Tensor
    """int64 [V]"""
    factors: Tensor
    """int64 [V]"""
    known_hashes: Tensor
    """int64 [W], ascending."""
    known: Tensor
    """int32 [W]: the words with these hashes."""
    sizes: Tensor
    """int32 [2]: W, and the word for all that are not known."""


class LanguageModelTables(NamedTuple):
    """A server's language model, and the one that is subtracted."""

    places: Tensor
    """int32 [4]: root and start of the first, and of the second; that is the empty automaton, where there is none."""
    words: WordTables | None
    """None for n-grams of tokens."""


class AutomatonTables(NamedTuple):
    """The automata of an arena of R rows, each from its root on; numbers within them are counted from there. At 0 there
    is an empty one."""

    first_arcs: Tensor
    """int32 [R], as are the others without a type."""
    fails: Tensor
    backoffs: Tensor
    """float32 [R]"""
    tokens: Tensor
    weights: Tensor
    """float32 [R]"""
    targets: Tensor
    language_models: LanguageModelTables | None

    @classmethod
    def of(cls, memory: Tensor, language_models: LanguageModelTables | None = None) -> AutomatonTables:
        """The parts of int32 [6, R]."""
        first_arcs, fails, backoffs, tokens, weights, targets = memory
        backoffs, weights = backoffs.view(torch.float32), weights.view(torch.float32)
        return cls(first_arcs, fails, backoffs, tokens, weights, targets, language_models)


@triton.jit
def advance(automata, root, states, tokens, emitted):
    """The weights of hypotheses in `states` of the automaton at `root` that get `tokens` where these are `emitted`,
    and their next states. All are vectors."""
    gains = states * 0.0
    following, here, going = states, states, emitted
    while tl.max(going.to(tl.int32), axis=0) > 0:
        low = tl.load(automata.first_arcs + root + here, mask=going, other=0)
        end = tl.load(automata.first_arcs + root + here + 1, mask=going, other=0)
        high = end
        while tl.max(high - low, axis=0) > 0:
            between = low < high
            middle = (low + high) // 2
            smaller = tl.load(automata.tokens + root + middle, mask=between, other=0) < tokens
            low = tl.where(between & smaller, middle + 1, low)
            high = tl.where(between & (smaller == 0), middle, high)
        found = (low < end) & (tl.load(automata.tokens + root + low, mask=low < end, other=-1) == tokens)
        gains += tl.load(automata.weights + root + low, mask=found, other=0.0)
        following = tl.where(found, tl.load(automata.targets + root + low, mask=found, other=0), following)
        lost = going & (found == 0)
        gains += tl.load(automata.backoffs + root + here, mask=lost, other=0.0)
        following = tl.where(lost, 0, following)  # the root, unless an arc is found on the way
        going = lost & (here != 0)
        here = tl.load(automata.fails + root + here, mask=going, other=0)
    return gains, following


@triton.jit
def taken_back(automata, root, states):
    """What hypotheses in `states` lose where they end: minus what a phrase holds that has begun and is not complete."""
    losses, here = states * 0.0, states
    while tl.max(here, axis=0) > 0:
        losses += tl.load(automata.backoffs + root + here, mask=here > 0, other=0.0)
        here = tl.load(automata.fails + root + here, mask=here > 0, other=0)
    return losses


@triton.jit
def advance_words(automata, root, states, partial, tokens, emitted):
    """`advance` in n-grams of words, which count a word when the next one begins; `partial`, int64, are the hashes of
    words that may still grow, 0 for none. Returns their next values too."""
    words = automata.language_models.words
    begins = emitted & (tl.load(words.begins + tokens, mask=emitted, other=0) != 0)
    gains, following = completed(automata, root, states, partial, begins)
    factors = tl.load(words.factors + tokens, mask=emitted, other=1)
    grown = tl.where(begins, 0, partial) * factors + tl.load(words.hashes + tokens, mask=emitted, other=0)
    return gains, following, tl.where(emitted, grown, partial)


@triton.jit
def completed(automata, root, states, partial, where):
    """The log-probabilities of the words with the hashes `partial`, where there is one and it ends, and the states
    behind them."""
    words = automata.language_models.words
    ends = where & (partial != 0)
    count, word = tl.load(words.sizes), tl.load(words.sizes + 1)
    low = states * 0
    high = tl.where(ends, count, 0)
    while tl.max(high - low, axis=0) > 0:
        between = low < high
        middle = (low + high) // 2
        smaller = tl.load(words.known_hashes + middle, mask=between, other=0) < partial
        low = tl.where(between & smaller, middle + 1, low)
        high = tl.where(between & (smaller == 0), middle, high)
    inside = ends & (low < count)
    found = inside & (tl.load(words.known_hashes + low, mask=inside, other=0) == partial)
    return advance(
        automata, root, states, tl.load(words.known + low, mask=found, other=0) + tl.where(found, 0, word), ends
    )
