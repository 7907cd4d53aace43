"""The fast searches against the references that define them, and what must hold for both."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.decoding.modified_beam_search import (
    _top,
    advance_modified_beam_search,
    start_modified_beam_search,
)
from moulin.decoding.found import Hypothesis
from moulin.decoding.network import log_softmax
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.decoding.search import REFERENCE_SEARCHES, SEARCHES, ReferenceSearch

from .toy_network import JOINER_DIM, ToyNetwork, frames

LENGTHS = [13, 0, 1, 30, 7, 8, 9, 0, 24]
BOTH = [
    pytest.param(searches[method], method, id=f"{kind}-{method}")
    for kind, searches in (("fast", SEARCHES), ("reference", REFERENCE_SEARCHES))
    for method in METHODS
]


def equal(got: Sequence[Hypothesis], wanted: Sequence[Hypothesis]) -> None:
    assert len(got) == len(wanted)
    for number, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
        assert (ours.tokens, ours.frames) == (theirs.tokens, theirs.frames), f"utterance {number}"
        np.testing.assert_allclose(ours.log_probs, theirs.log_probs, rtol=1e-5, err_msg=f"utterance {number}")
        assert ours.score == pytest.approx(theirs.score, rel=1e-6, abs=1e-5), f"utterance {number}"


def fast_equals_reference(network: ToyNetwork, options: DecodingOptions, lengths: list[int], seed: int = 0) -> None:
    encoder_out, lens = frames(lengths, seed)
    wanted = REFERENCE_SEARCHES[options.method](network, encoder_out, lens, options)
    equal(SEARCHES[options.method](network, encoder_out, lens, options), wanted)


# ------------------------------------------------------------------------------------------------- fast and reference


@pytest.mark.parametrize("peaky", [0.0, 4.0, 9.0])
@pytest.mark.parametrize("context_size", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_fast_equals_reference(method: Method, context_size: int, peaky: float) -> None:
    network = ToyNetwork(context_size=context_size, peaky=peaky, seed=context_size)
    fast_equals_reference(network, DecodingOptions(method=method), LENGTHS)


@pytest.mark.parametrize("peaky", [0.0, 4.0])
@pytest.mark.parametrize("beam", range(1, 11))
def test_every_beam(beam: int, peaky: float) -> None:
    network = ToyNetwork(peaky=peaky, seed=beam)
    fast_equals_reference(network, DecodingOptions("modified_beam_search", beam=beam), LENGTHS, seed=beam)


@pytest.mark.parametrize("vocab_size", [2, 3, 5, 37, 500])
@pytest.mark.parametrize("method", METHODS)
def test_every_vocabulary(method: Method, vocab_size: int) -> None:
    """Also of fewer tokens than the beam has places."""
    network = ToyNetwork(vocab_size=vocab_size, skipped_ids=(0, 2) if vocab_size > 2 else (0,))
    fast_equals_reference(network, DecodingOptions(method=method, beam=8), LENGTHS)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0], [1], [8], [9], [40], [5] * 17, list(range(33))], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_every_batch(method: Method, lengths: list[int]) -> None:
    fast_equals_reference(ToyNetwork(peaky=2.0), DecodingOptions(method=method), lengths)


@pytest.mark.parametrize("blank_penalty", [0.0, 1.5, -2.0])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("method", METHODS)
def test_temperature_and_blank_penalty(method: Method, temperature: float, blank_penalty: float) -> None:
    options = DecodingOptions(method, temperature=temperature, blank_penalty=blank_penalty)
    fast_equals_reference(ToyNetwork(peaky=2.0), options, LENGTHS)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("method", METHODS)
def test_ties(method: Method, seed: int) -> None:
    """Coarse logits make equal scores everywhere; both forms take the same.

    Two frames: after a merge equal scores are equal only up to the rounding of two ways to add probabilities.
    """
    network = ToyNetwork(vocab_size=7, seed=seed, levels=1, skipped_ids=(0,))
    fast_equals_reference(network, DecodingOptions(method, beam=3), [2, 1, 0, 2, 2, 2], seed)


@given(
    lengths=st.lists(st.integers(0, 20), max_size=6),
    beam=st.integers(1, 10),
    context_size=st.integers(1, 3),
    vocab_size=st.integers(3, 20),
    peaky=st.sampled_from([0.0, 3.0, 6.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_fast_equals_reference_anywhere(
    lengths: list[int], beam: int, context_size: int, vocab_size: int, peaky: float, seed: int
) -> None:
    network = ToyNetwork(vocab_size, context_size, seed, peaky)
    for method in METHODS:
        fast_equals_reference(network, DecodingOptions(method, beam=beam), lengths, seed)


# ---------------------------------------------------------------------------------------------------- what must hold


@pytest.mark.parametrize(("search", "method"), BOTH)
def test_frames_beyond_an_utterance_are_never_looked_at(search: ReferenceSearch, method: Method) -> None:
    """D8: padding is NaN in all these tests, which the network refuses; and a longer padding changes nothing."""
    network, options = ToyNetwork(), DecodingOptions(method)
    encoder_out, lens = frames(LENGTHS)
    padding = np.full((len(LENGTHS), 11, JOINER_DIM), np.nan, np.float32)
    longer = np.concatenate([encoder_out, padding], axis=1)
    equal(search(network, longer, lens, options), search(network, encoder_out, lens, options))


@pytest.mark.parametrize(("search", "method"), BOTH)
def test_a_hypothesis_is_well_formed(search: ReferenceSearch, method: Method) -> None:
    """At most one token a frame, in order, never blank or unk, with the probabilities that they had."""
    network = ToyNetwork()
    for length, hypothesis in zip(LENGTHS, search(network, *frames(LENGTHS), DecodingOptions(method)), strict=True):
        assert list(hypothesis.frames) == sorted(set(hypothesis.frames))
        assert all(0 <= frame < length for frame in hypothesis.frames)
        assert not {0, 2} & set(hypothesis.tokens)
        assert len(hypothesis.tokens) == len(hypothesis.frames) == len(hypothesis.log_probs)
        assert all(log_prob <= 0 for log_prob in hypothesis.log_probs)
        assert hypothesis.score <= 0
        assert all(isinstance(number, int) for number in (*hypothesis.tokens, *hypothesis.frames))


@pytest.mark.parametrize(("search", "method"), BOTH)
def test_unk_is_heard_as_silence(search: ReferenceSearch, method: Method) -> None:
    """A network that knows only `<unk>` says nothing and never sees it in its context."""
    network = ToyNetwork(skipped_ids=(0, 2))
    network.bias[2] += 100
    for hypothesis in search(network, *frames(LENGTHS), DecodingOptions(method)):
        assert hypothesis.tokens == ()
    assert all((context[:, -1] == 0).all() for context in network.contexts[:1])

    emitting = ToyNetwork(skipped_ids=(0,))
    emitting.bias[2] += 100
    hypotheses = search(emitting, *frames(LENGTHS), DecodingOptions(method))
    assert [hypothesis.tokens for hypothesis in hypotheses] == [(2,) * length for length in LENGTHS]


@pytest.mark.parametrize(("search", "method"), BOTH)
@pytest.mark.parametrize("context_size", [1, 2, 3])
def test_the_first_context(search: ReferenceSearch, method: Method, context_size: int) -> None:
    """[-1, ..., 0], as in Icefall's greedy_search_batch."""
    network = ToyNetwork(context_size=context_size)
    search(network, *frames([2]), DecodingOptions(method))
    assert network.contexts[0].tolist()[0] == [-1] * (context_size - 1) + [0]


@pytest.mark.parametrize(("search", "method"), BOTH)
def test_order_of_the_batch_does_not_matter(search: ReferenceSearch, method: Method) -> None:
    network, options = ToyNetwork(peaky=1.0), DecodingOptions(method)
    encoder_out, lens = frames(LENGTHS)
    wanted = search(network, encoder_out, lens, options)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(LENGTHS))
        equal(search(network, encoder_out[order], lens[order], options), [wanted[row] for row in order])


@pytest.mark.parametrize(("search", "method"), BOTH)
def test_a_batch_is_its_utterances_one_by_one(search: ReferenceSearch, method: Method) -> None:
    network, options = ToyNetwork(peaky=1.0), DecodingOptions(method)
    encoder_out, lens = frames(LENGTHS)
    alone = [
        search(network, encoder_out[row : row + 1], lens[row : row + 1], options)[0] for row in range(len(LENGTHS))
    ]
    equal(search(network, encoder_out, lens, options), alone)


@pytest.mark.parametrize(("search", "method"), BOTH)
def test_the_input_is_left_alone(search: ReferenceSearch, method: Method) -> None:
    encoder_out, lens = frames(LENGTHS)
    before = encoder_out.copy(), lens.copy()
    search(ToyNetwork(), encoder_out, lens, DecodingOptions(method, blank_penalty=1.0, temperature=2.0))
    np.testing.assert_array_equal(encoder_out, before[0])
    np.testing.assert_array_equal(lens, before[1])


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    """A single hypothesis has nothing to merge with."""
    network, (encoder_out, lens) = ToyNetwork(seed=seed, peaky=1.0), frames(LENGTHS, seed)
    greedy = SEARCHES["greedy"](network, encoder_out, lens, DecodingOptions())
    equal(
        SEARCHES["modified_beam_search"](network, encoder_out, lens, DecodingOptions("modified_beam_search", beam=1)),
        greedy,
    )


def test_a_wide_beam_finds_the_best_of_all_paths() -> None:
    """Three frames of a network with three tokens, all 27 paths enumerated and merged by hand."""
    network = ToyNetwork(vocab_size=3, skipped_ids=(0,), seed=3)
    encoder_out, lens = frames([3], seed=1)
    options = DecodingOptions("modified_beam_search", beam=27)
    scores: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(3), repeat=3):
        tokens: tuple[int, ...] = ()
        score = 0.0
        for frame, token in enumerate(path):
            context = np.array([[-1, 0, *tokens][-2:]], np.int64)
            logits = network.joiner(encoder_out[0, frame : frame + 1], network.decoder(context))
            score += float(log_softmax(logits, options)[0, token])
            tokens = (*tokens, token) if token else tokens
        scores[tokens] = np.logaddexp(scores.get(tokens, -np.inf), score)
    best = max(scores, key=lambda tokens: scores[tokens] / (len(tokens) + 2))
    for search in (SEARCHES, REFERENCE_SEARCHES):
        [found] = search["modified_beam_search"](network, encoder_out, lens, options)
        assert found.tokens == best
        assert found.score == pytest.approx(scores[best], abs=1e-5)
    assert sum(np.exp(list(scores.values()))) == pytest.approx(1, abs=1e-5)


def test_greedy_score_is_the_sum_over_all_frames() -> None:
    network, (encoder_out, lens) = ToyNetwork(peaky=100.0), frames([20])
    [hypothesis] = SEARCHES["greedy"](network, encoder_out, lens, DecodingOptions())
    [penalised] = SEARCHES["greedy"](network, encoder_out, lens, DecodingOptions(blank_penalty=100.0))
    assert hypothesis.tokens == ()
    assert hypothesis.score == pytest.approx(0, abs=1e-5)
    assert penalised.tokens
    assert penalised.score < sum(penalised.log_probs) + 1e-5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("blank_penalty", [0.0, 2.0])
def test_log_softmax(temperature: float, blank_penalty: float) -> None:
    logits = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32) * 50
    before = logits.copy()
    got = log_softmax(logits, DecodingOptions(temperature=temperature, blank_penalty=blank_penalty))
    exact = logits.astype(np.float64)
    exact[:, 0] -= blank_penalty
    exact /= temperature
    exact -= np.log(np.exp(exact - exact.max(1, keepdims=True)).sum(1, keepdims=True)) + exact.max(1, keepdims=True)
    np.testing.assert_allclose(got, exact, atol=1e-4)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(logits, before)


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=9, max_size=9), min_size=1, max_size=4),
    st.integers(1, 9),
)
def test_top_takes_the_leftmost_of_equal_values(rows: list[list[int]], count: int) -> None:
    totals = np.array(rows, dtype=np.float64)
    wanted = [sorted(range(9), key=lambda at: (-row[at], at))[:count] for row in rows]
    assert _top(totals, count).tolist() == wanted


# ------------------------------------------------------------------------------------------------- piece by piece


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    beam=st.integers(1, 6),
    peaky=st.sampled_from([0.0, 4.0, 9.0]),
    pieces=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_any_pieces_equal_the_whole(
    method: Method, beam: int, peaky: float, pieces: list[list[int]], seed: int
) -> None:
    """Three utterances whose frames come in pieces of different lengths, some of them empty."""
    network = ToyNetwork(peaky=peaky, seed=seed)
    options = DecodingOptions(method, beam=beam)
    lengths = [sum(column) for column in zip(*pieces, strict=True)]
    encoder_out, lens = frames(lengths, seed)
    search = SEARCHES[method]
    states = search.start(network, 3, options)
    done = np.zeros(3, dtype=np.int64)
    for piece in pieces:
        chunk = np.full((3, max(piece), JOINER_DIM), np.nan, dtype=np.float32)
        for row, count in enumerate(piece):
            chunk[row, :count] = encoder_out[row, done[row] : done[row] + count]
        search.advance(network, states, chunk, np.array(piece), options)
        done += piece
    assert [state.num_frames for state in states] == lengths
    equal([state.hypothesis() for state in states], REFERENCE_SEARCHES[method](network, encoder_out, lens, options))


def test_utterances_come_and_go_between_pieces() -> None:
    """Who is in a batch may change with every piece."""
    network = ToyNetwork(peaky=4.0)
    encoder_out, lens = frames([24] * 4)
    for method in METHODS:
        options = DecodingOptions(method)
        search = SEARCHES[method]
        states = search.start(network, 4, options)
        for first, rows in ((0, [0, 1]), (0, [3]), (8, [1, 0]), (0, [2]), (8, [2, 3]), (16, [3, 0, 2, 1])):
            chunk = encoder_out[rows, first : first + 8]
            search.advance(network, [states[row] for row in rows], chunk, np.full(len(rows), 8), options)
        equal([state.hypothesis() for state in states], REFERENCE_SEARCHES[method](network, encoder_out, lens, options))


def test_beam_search_keeps_little_of_a_long_utterance() -> None:
    """What all hypotheses agree on is settled; only the end of each is kept apart."""
    network = ToyNetwork(peaky=9.0)
    options = DecodingOptions("modified_beam_search")
    encoder_out, lens = frames([2000])
    (state,) = start_modified_beam_search(network, 1, options)
    for first in range(0, 2000, 8):
        advance_modified_beam_search(network, [state], encoder_out[:, first : first + 8], np.array([8]), options)
        assert len(state.hypothesis().tokens) - len(state.settled) < 200
    equal([state.hypothesis()], REFERENCE_SEARCHES["modified_beam_search"](network, encoder_out, lens, options))
