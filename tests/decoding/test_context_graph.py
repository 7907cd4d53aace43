"""The automaton in arrays against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.decoding.context_graph import EMPTY, ContextGraph, ContextGraphs
from moulin.decoding.plain_context_graph import PlainContextGraph, State

PHRASES = st.dictionaries(
    st.lists(st.integers(1, 4), min_size=1, max_size=6).map(tuple), st.sampled_from([0.5, 1.0, 1.5, 3.0]), max_size=8
)
TOKENS = st.lists(st.integers(1, 5), max_size=20)


def plain_bonuses(phrases: dict[tuple[int, ...], float], tokens: list[int]) -> list[float]:
    graph, bonuses = PlainContextGraph(phrases), []
    state: State = ()
    for token in tokens:
        bonus, state = graph.advance(state, token)
        bonuses.append(bonus)
    return [*bonuses, graph.held(state)]


def bonuses(graphs: ContextGraphs, number: int, tokens: list[int]) -> list[float]:
    """The bonus of every token, and what the last state holds."""
    root = graphs.roots[[number]]
    state, found = root, []
    for token in tokens:
        bonus, state = graphs.advance(root, state, np.array([token]))
        assert bonus.dtype == np.float32
        found += bonus.tolist()
    return [*found, float(graphs.held[state[0]])]


@settings(deadline=None)
@given(PHRASES, TOKENS)
def test_bonuses_are_those_of_the_definition(phrases: dict[tuple[int, ...], float], tokens: list[int]) -> None:
    graph = ContextGraph.of(phrases)
    assert bonuses(graph.alone, 0, tokens) == pytest.approx(plain_bonuses(phrases, tokens))


@settings(deadline=None)
@given(st.lists(PHRASES, min_size=1, max_size=5), st.data())
def test_graphs_of_an_arena_do_not_mix(several: list[dict[tuple[int, ...], float]], data: st.DataObject) -> None:
    """Hypotheses in different graphs advance together, and each as in its own."""
    arena = ContextGraphs.of([*map(ContextGraph.of, several), EMPTY])
    rows = data.draw(st.lists(st.integers(0, len(several)), min_size=1, max_size=8))
    length = data.draw(st.integers(0, 12))
    tokens = np.array(
        data.draw(
            st.lists(
                st.lists(st.integers(1, 5), min_size=length, max_size=length), min_size=len(rows), max_size=len(rows)
            )
        ),
        np.int64,
    ).reshape(len(rows), length)
    roots = arena.roots[rows]
    states, found = roots, []
    for frame in range(length):
        bonus, states = arena.advance(roots, states, tokens[:, frame])
        found.append(bonus)
    for row, number in enumerate(rows):
        phrases = several[number] if number < len(several) else {}
        wanted = plain_bonuses(phrases, tokens[row].tolist())[:-1]
        assert [float(bonus[row]) for bonus in found] == pytest.approx(wanted)


@settings(deadline=None)
@given(PHRASES)
def test_the_order_of_phrases_does_not_matter(phrases: dict[tuple[int, ...], float]) -> None:
    one, other = ContextGraph.of(phrases), ContextGraph.of(dict(reversed(phrases.items())))
    for name in ("first_children", "tokens", "fails", "held", "gained", "follows"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@settings(deadline=None)
@given(PHRASES)
def test_children_are_found_by_offsets_and_tokens(phrases: dict[tuple[int, ...], float]) -> None:
    """What a kernel reads: from the root by children alone, each phrase ends where it is complete."""
    graph = ContextGraph.of(phrases)
    assert graph.first_children[-1] == len(graph)
    for phrase in phrases:
        state = 0
        for token in phrase:
            first, last = graph.first_children[state : state + 2].tolist()
            state = first + graph.tokens[first:last].tolist().index(token)
        assert graph.follows[state] == 0


@pytest.mark.parametrize(
    ("phrases", "tokens", "wanted"),
    [
        ({(1, 2, 3): 1.0}, [1, 2, 3, 9], [1, 1, 1, 0, 0]),  # complete: kept
        ({(1, 2, 3): 1.0}, [1, 2, 9], [1, 1, -2, 0]),  # broken off: taken back
        ({(1, 2, 3): 1.0}, [1, 2], [1, 1, 2]),  # open at the end
        ({(1, 2): 1.0, (1, 2, 3): 1.0}, [1, 2, 3], [1, 1, 0, 0]),  # the shorter one ends the longer one
        ({(1, 2, 3, 4): 1.0, (2, 3): 2.0}, [1, 2, 3, 4], [1, 1, 2, 0, 0]),  # one within another: its bonus stays
        ({(1, 2, 3): 1.0, (2, 4): 1.0}, [1, 2, 4], [1, 1, 0, 0]),  # overlap: from one phrase into the next
        ({(1, 2): 1.0, (1, 3): 2.0}, [1, 2, 1, 9], [2, 1, 2, -2, 0]),  # a shared beginning has the higher score
        ({}, [1, 2], [0, 0, 0]),
    ],
)
def test_by_hand(phrases: dict[State, float], tokens: list[int], wanted: list[float]) -> None:
    assert plain_bonuses(phrases, tokens) == wanted
    assert bonuses(ContextGraph.of(phrases).alone, 0, tokens) == wanted


def test_a_large_list_is_built_level_by_level() -> None:
    """100,000 phrases, of the largest vocabulary: what a server's own list may have."""
    rng = np.random.default_rng(0)
    phrases = {tuple(row): 1.5 for row in rng.integers(1, 1_000_000, (100_000, 5)).tolist()}
    graph = ContextGraph.of(phrases)
    some = list(phrases)[::10_000]
    for phrase in some:
        assert bonuses(graph.alone, 0, list(phrase)) == pytest.approx([1.5] * 5 + [0])
