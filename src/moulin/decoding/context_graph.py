"""The Aho-Corasick automaton over hotwords' tokens, as flat arrays.

A state is the beginning of a phrase that the last tokens of a hypothesis spell. A token leads to the longest such
beginning that the hypothesis then ends in; the bonus that the state holds is what the hypothesis has been given, so it
grows with each token of a phrase and is taken back when the phrase breaks off. Where a phrase is complete its bonus
stays for good, and the next token begins anew. `moulin.decoding.plain_context_graph` defines the same, which is
sherpa-onnx's `ContextGraph` in its decoders (`strict_mode` off), with one difference: there, of phrases with a shared
beginning and different scores, the bonus of a later one with a higher score is not taken back from the earlier ones.
Here the order of phrases does not matter.

States are numbered by their depth, then by the state before, then by token; the root, of no tokens, is 0. So the
children of a state have consecutive numbers, and a kernel finds one by a search in `tokens`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Self

import numpy as np

from moulin.arrays import Floats, Ints, Ints32

_TOKEN_BITS = 20
"""A vocabulary has at most a million tokens (`moulin.bundle.tokens.MOST_TOKENS`)."""
_TOKEN_MASK = (1 << _TOKEN_BITS) - 1
_NO_KEY = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class ContextGraph:
    """The automaton of some phrases, with S states. Each array has one value a state."""

    phrases: Mapping[tuple[int, ...], float]
    """The bonus for each token of a phrase, by its tokens; where phrases begin alike, the highest of them holds."""
    first_children: Ints32
    """[S + 1]: the children of state s are first_children[s] to first_children[s + 1] - 1."""
    tokens: Ints32
    """[S]: the last token of each state; -1 for the root."""
    fails: Ints32
    """[S]: the longest proper suffix of the state that is a state too."""
    held: Floats
    """[S]: the bonus of a hypothesis in this state, to be taken back when it breaks off."""
    gained: Floats
    """[S]: the bonus on arrival: `held`, or where a phrase is complete that phrase's, which stays."""
    follows: Ints32
    """[S]: the state in which the search goes on: this one, or 0 where a phrase is complete."""

    @classmethod
    def of(cls, phrases: Mapping[tuple[int, ...], float]) -> Self:
        """The automaton of `phrases`, none of them empty, level by level."""
        lengths = np.array([len(phrase) for phrase in phrases], np.int64)
        flat = np.fromiter(chain.from_iterable(phrases), np.int64, int(lengths.sum()))
        starts = np.cumsum(lengths) - lengths
        scores = np.fromiter(phrases.values(), np.float64, len(phrases))
        most = 1 + len(flat)
        keys = np.full(most + 1, _NO_KEY)
        fails, follows = np.zeros(most, np.int64), np.zeros(most, np.int64)
        held, gained, complete = np.zeros(most), np.zeros(most), np.zeros(most, np.bool_)
        keys[0] = -1
        at = np.zeros(len(phrases), np.int64)  # the state that each phrase has reached
        level, begin = 0, 1
        while (going := np.flatnonzero(lengths > level)).size:
            arcs, which = np.unique(_keys(at[going], flat[starts[going] + level]), return_inverse=True)
            parents, tokens = arcs >> _TOKEN_BITS, arcs & _TOKEN_MASK
            new, end = slice(begin, begin + len(arcs)), begin + len(arcs)
            bonuses = np.zeros(len(arcs))
            np.maximum.at(bonuses, which, scores[going])
            if level:
                fails[new] = _follow(keys[: begin + 1], fails, np.zeros_like(parents), fails[parents], tokens)
            keys[new] = arcs
            held[new] = held[parents] + bonuses
            ends = np.zeros(len(arcs), np.bool_)
            ends[which[lengths[going] == level + 1]] = True
            complete[new] = ends | complete[fails[new]]
            gained[new] = np.where(ends | ~complete[new], held[new], gained[fails[new]])
            follows[new] = np.where(complete[new], 0, np.arange(begin, end))
            at[going] = begin + which
            level, begin = level + 1, end
        return cls(
            phrases,
            (1 + np.searchsorted(keys[1:begin], np.arange(begin + 1) << _TOKEN_BITS)).astype(np.int32),
            np.where(keys[:begin] < 0, -1, keys[:begin] & _TOKEN_MASK).astype(np.int32),
            fails[:begin].astype(np.int32),
            held[:begin].astype(np.float32),
            gained[:begin].astype(np.float32),
            follows[:begin].astype(np.int32),
        )

    def __len__(self) -> int:
        """The number of states."""
        return len(self.tokens)

    @property
    def size_bytes(self) -> int:
        """About what the graph needs in memory, small objects and `alone` included."""
        return 3000 + 300 * len(self.phrases) + 60 * len(self)

    @cached_property
    def content(self) -> bytes:
        """A hash of the arrays: graphs that do the same have the same."""
        arrays = self.first_children, self.tokens, self.fails, self.held, self.gained, self.follows
        return hashlib.blake2b(b"".join(array.tobytes() for array in arrays), digest_size=16).digest()

    @cached_property
    def alone(self) -> ContextGraphs:
        """The arena of this graph, number 0, and an empty one, number 1."""
        return ContextGraphs.of([self, EMPTY])


@dataclass(frozen=True, slots=True)
class ContextGraphs:
    """An arena: the states of G graphs one after another, numbered throughout."""

    roots: Ints
    """[G]: the first state of each graph."""
    keys: Ints
    """[S + 1]: of each state the one before it and its last token, ascending; one more that no state has."""
    fails: Ints
    """[S]"""
    held: Floats
    """[S]"""
    gained: Floats
    """[S]"""
    follows: Ints
    """[S]"""

    @classmethod
    def of(cls, graphs: Sequence[ContextGraph]) -> Self:
        sizes = np.array([len(graph) for graph in graphs])
        roots = np.cumsum(sizes) - sizes
        own_root = np.repeat(roots, sizes)
        parents = np.concatenate([np.repeat(np.arange(len(graph)), np.diff(graph.first_children)) for graph in graphs])
        tokens, fails, held, gained, follows = (
            np.concatenate([getattr(graph, name) for graph in graphs])
            for name in ("tokens", "fails", "held", "gained", "follows")
        )
        keys = np.full(len(tokens) + 1, _NO_KEY)
        keys[roots] = (roots << _TOKEN_BITS) - 1  # between the graph before and this one, and no token's
        inner = np.flatnonzero(tokens >= 0)
        keys[inner] = _keys(own_root[inner] + parents, tokens[inner])
        return cls(roots, keys, fails + own_root, held, gained, follows + own_root)

    def advance(self, roots: Ints, states: Ints, tokens: Ints) -> tuple[Floats, Ints]:
        """The bonuses, float32 [M], of hypotheses in `states` of the graphs at `roots` that get `tokens`, and the next
        states, int64 [M]."""
        arrived = _follow(self.keys, self.fails, roots, states, tokens)
        return self.gained.take(arrived) - self.held.take(states), self.follows.take(arrived)


def _keys(states: Ints, tokens: Ints | Ints32) -> Ints:
    keys: Ints = (states << _TOKEN_BITS) | tokens
    return keys


def _children(keys: Ints, states: Ints, tokens: Ints) -> Ints:
    """The child of each of `states` by its token, -1 for none."""
    wanted = _keys(states, tokens)
    found = keys.searchsorted(wanted)
    found[keys.take(found) != wanted] = -1
    return found


def _follow(keys: Ints, fails: Ints, roots: Ints, states: Ints, tokens: Ints) -> Ints:
    """The states that `tokens` lead to from `states`: a child of the state, else of the first of its fail states that
    has one, the last of which is the root, else the root."""
    count = len(states)
    # Most are found there or at the root: one search for both.
    found = _children(keys, np.concatenate([states, roots]), np.concatenate([tokens, tokens]))
    arrived = found[:count]
    lost = (arrived < 0).nonzero()[0]
    if not lost.size:
        return arrived
    arrived[lost] = np.maximum(found[count:], roots).take(lost)  # a root is before its children
    here = fails.take(states.take(lost))
    while (on := (here != roots.take(lost)).nonzero()[0]).size:
        lost, here = lost.take(on), here.take(on)
        child = _children(keys, here, tokens.take(lost))
        there, on = (child >= 0).nonzero()[0], (child < 0).nonzero()[0]
        arrived[lost.take(there)] = child.take(there)
        lost, here = lost.take(on), fails.take(here.take(on))
    return arrived


EMPTY = ContextGraph.of({})
"""The graph of no phrases: its bonuses are 0."""
