"""Hotwords and n-grams in one form, as the kernels walk them: weighted automata with failure arcs.

A token leads along the arc of the state, where it has one for it; else the state's back-off weight is added and the
search goes on in the state that it fails to, down to the root. For n-grams that is what ARPA says. For hotwords
(`moulin.decoding.context_graph`) the back-off weight takes back what the longer beginning held more than the shorter
one, and an arc gives what its phrase holds more behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from moulin.arrays import Floats, Ints, Ints32
from moulin.decoding.context_graph import ContextGraph
from moulin.language_models.ngram_model import NgramModel


@dataclass(frozen=True, slots=True)
class Automaton:
    """S states, the root first, and A arcs, those of a state together and in the order of their tokens."""

    first_arcs: Ints32
    """[S + 1]: the arcs of state s are first_arcs[s] to first_arcs[s + 1] - 1."""
    fails: Ints32
    """[S]: where a search goes on that finds no arc; of the root itself."""
    backoffs: Floats
    """[S]: what is added then."""
    tokens: Ints32
    """[A]"""
    weights: Floats
    """[A]: what a hypothesis gains on the arc."""
    targets: Ints32
    """[A]: the state behind it."""
    start: int = 0
    """The state before the first token."""

    @classmethod
    def of_context_graph(cls, graph: ContextGraph) -> Self:
        """Its arcs are those from a state to its children, each of which has one arc to it; states keep their numbers.

        What an open phrase holds is minus the sum of the back-off weights on the way to the root.
        """
        held, parents = graph.held.astype(np.float64), np.repeat(np.arange(len(graph)), np.diff(graph.first_children))
        return cls(
            graph.first_children - 1,
            graph.fails,
            (held[graph.fails] - held).astype(np.float32),
            graph.tokens[1:],
            (graph.gained[1:] - held[parents]).astype(np.float32),
            graph.follows[1:],
        )

    @classmethod
    def of_ngrams(cls, ngrams: NgramModel, word_of: Ints | None = None) -> Self:
        """Its states are the histories and its arcs the n-grams; the "tokens" are words. With `word_of` [V] they are
        tokens, and an n-gram has an arc for each token that is its last word."""
        parents, words = ngrams.parents_and_words
        word_of = np.arange(len(ngrams.words)) if word_of is None else word_of
        by_word = np.argsort(word_of, kind="stable")
        first, end = (np.searchsorted(word_of[by_word], words, side) for side in ("left", "right"))
        counts = end - first
        which = np.repeat(np.arange(len(words)), counts)  # the n-gram of each arc
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        tokens = by_word[first[which] + within]
        order = np.lexsort((tokens, parents[which]))
        which, tokens = which[order], tokens[order]
        states = ngrams.num_histories
        return cls(
            np.searchsorted(parents[which], np.arange(states + 1)).astype(np.int32),
            ngrams.fails[:states],
            ngrams.backoffs[:states],
            tokens.astype(np.int32),
            ngrams.log_probs[1:][which],
            ngrams.history(1 + which).astype(np.int32),
            int(ngrams.start),
        )

    @property
    def rows(self) -> int:
        """The length of the longest array."""
        return max(len(self.first_arcs), len(self.tokens))

    @property
    def columns(self) -> tuple[Ints32 | Floats, ...]:
        """The arrays, in the order of `moulin.gpu.kernels.automata.AutomatonTables`."""
        return self.first_arcs, self.fails, self.backoffs, self.tokens, self.weights, self.targets
