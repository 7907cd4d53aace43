"""Hotwords and n-grams as the kernels walk them, against the searches' own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from moulin.arrays import Floats, Ints
from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.language_model import Fusion, LanguageModel, TokenModel, WordModel
from moulin.gpu.arena import AutomatonArena
from moulin.gpu.automata import Automaton
from moulin.gpu.kernels.automata import AutomatonTables
from tests.decoding.test_search_with_language_model import TOKENS, token_model, token_ngrams, word_model, word_ngrams

from .kernels.walks import walk_kernel, walk_words_kernel

Phrases = Mapping[tuple[int, ...], float]

PLACES = 8
PHRASES: dict[str, Phrases] = {
    "one": {(1, 2, 3): 1.5},
    "overlapping": {(1, 2, 3): 1.0, (2, 3, 4): 2.0, (3, 4, 1): 0.5},
    "shared beginnings": {(1, 2, 3): 1.0, (1, 2, 4): 3.0, (1, 3): 0.5},
    "one within another": {(1, 2, 3, 4): 1.0, (2, 3): 2.0, (3,): 0.25},
    "the shorter one first": {(1, 2): 1.0, (1, 2, 3): 1.0},
    "failing through many": {(1, 1, 1, 1, 2): 1.0, (1, 1, 3): 2.0, (1, 4): 3.0},
    "none": {},
}


def walked(
    tables: AutomatonTables, roots: ArrayLike, starts: ArrayLike, tokens: Ints, device: torch.device
) -> tuple[Floats, Ints, Floats]:
    """Gains and states after each of `tokens` [B, L, PLACES], and the losses in the end [B, PLACES]."""
    rows, length, _ = tokens.shape
    gains = torch.empty(tokens.shape, device=device)
    states = torch.empty(tokens.shape, dtype=torch.int32, device=device)
    losses = torch.empty(rows, PLACES, device=device)
    given = (torch.from_numpy(np.ascontiguousarray(values, np.int32)).to(device) for values in (roots, starts, tokens))
    walk_kernel[(rows,)](tables, *given, gains, states, losses, length, PLACES)
    return gains.cpu().numpy(), states.cpu().numpy(), losses.cpu().numpy()


def test_hotwords_of_every_kind_beside_each_other(device: torch.device) -> None:
    graphs = [ContextGraph.of(phrases) for phrases in PHRASES.values()]
    arena = AutomatonArena(device, rows=200)
    pairs = np.full((len(graphs), 2), None)
    pairs[:, 1] = graphs
    roots = arena.place(pairs)[:, 1]
    tokens = np.random.default_rng(0).integers(1, 5, (len(graphs), 12, PLACES))
    tokens[:, ::5, ::3] = -1
    gains, states, losses = walked(arena.tables, roots, np.zeros(len(graphs)), tokens, device)
    for row, graph in enumerate(graphs):
        root = graph.alone.roots[np.zeros(PLACES, np.int64)]
        at, total = root, np.zeros(PLACES)
        for number in range(tokens.shape[1]):
            some = np.flatnonzero(tokens[row, number] >= 0)
            wanted = np.zeros(PLACES)
            wanted[some], following = graph.alone.advance(root[some], at[some], tokens[row, number, some])
            at = at.copy()
            at[some] = following
            np.testing.assert_allclose(gains[row, number], wanted, atol=1e-5)
            assert states[row, number].tolist() == (at - root).tolist()
            total += wanted
        np.testing.assert_allclose(losses[row], -graph.held[at], atol=1e-5)
    assert np.abs(losses).max() > 0


@pytest.mark.parametrize("order", [1, 2, 3])
def test_n_grams_of_tokens(order: int, device: torch.device) -> None:
    """Tokens that the n-grams lack are their unknown word."""
    model = token_model(token_ngrams(3, order))
    missing = np.bincount(model.words).argmax()
    assert np.count_nonzero(model.words == missing) > 1
    arena = AutomatonArena(device, rows=10, fusion=Fusion(model, token_model(token_ngrams(4, 2))))
    assert arena.tables.language_models is not None
    root, start, other, _ = arena.tables.language_models.places.tolist()
    assert root < other
    tokens = np.random.default_rng(order).integers(1, len(TOKENS), (1, 12, PLACES))
    gains, states, _ = walked(arena.tables, np.array([root]), np.array([start]), tokens, device)
    check(model, gains[0], states[0], tokens[0])


def check(model: LanguageModel, gains: Floats, states: Ints, tokens: Ints) -> None:
    at = np.tile(model.start, (tokens.shape[1], 1))
    for number, of_frame in enumerate(tokens):
        wanted, at = model.advance(at, of_frame)
        np.testing.assert_allclose(gains[number], wanted, atol=1e-4)
        assert states[number].tolist() == at[:, 0].tolist()
    if len(gains) > len(tokens):
        np.testing.assert_allclose(gains[-1], model.open(at), atol=1e-4)
        assert states[-1].tolist() == model.closed(at)[:, 0].tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_n_grams_of_words(seed: int, device: torch.device) -> None:
    model: WordModel = word_model(word_ngrams(seed))
    tables = AutomatonArena(device, rows=10, fusion=Fusion(model)).tables
    tokens = np.random.default_rng(seed).integers(1, len(TOKENS), (14, PLACES))
    gains = torch.empty(15, PLACES, device=device)
    states = torch.empty(15, PLACES, dtype=torch.int32, device=device)
    given = torch.from_numpy(tokens.astype(np.int32)).to(device)
    walk_words_kernel[(1,)](tables, given, gains, states, len(tokens), PLACES)
    check(model, gains.cpu().numpy(), states.cpu().numpy(), tokens)


def test_the_arcs_of_a_state_are_in_the_order_of_their_tokens() -> None:
    model: TokenModel = token_model(token_ngrams(0, 3))
    for automaton in (
        Automaton.of_context_graph(ContextGraph.of(PHRASES["overlapping"])),
        Automaton.of_ngrams(model.ngrams, model.words),
    ):
        assert automaton.first_arcs[-1] == len(automaton.tokens) == len(automaton.targets)
        for first, end in zip(automaton.first_arcs, automaton.first_arcs[1:], strict=False):
            assert np.all(np.diff(automaton.tokens[first:end]) > 0)
