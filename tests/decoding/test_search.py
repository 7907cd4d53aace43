"""The fast searches against the references that define them, and properties of both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.arrays import Floats, Ints
from moulin.decoding.found import Found, Hypothesis
from moulin.decoding.hypotheses import OpenHypotheses
from moulin.decoding.language_model import Fusion
from moulin.decoding.modified_beam_search import largest
from moulin.decoding.network import log_softmax
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.decoding.reference import search_reference
from moulin.decoding.row_graphs import Graphs
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation, Searches, search
from moulin.errors import EngineError

from .toy_network import JOINER_DIM, ToyNetwork, frames

LENGTHS = [13, 0, 1, 30, 7, 8, 9, 0, 24]

Whole = Callable[[ToyNetwork, Floats, Ints, DecodingOptions], list[Hypothesis]]


def fast(network: ToyNetwork, encoder_out: Floats, lens: Ints, options: DecodingOptions) -> list[Hypothesis]:
    return search(network, encoder_out, lens, RowOptions.of([options] * len(lens))).hypotheses()


def reference(network: ToyNetwork, encoder_out: Floats, lens: Ints, options: DecodingOptions) -> list[Hypothesis]:
    return search_reference(network, encoder_out, lens, RowOptions.of([options] * len(lens))).hypotheses()


BOTH = [
    pytest.param(whole, method, id=f"{whole.__name__}-{method}") for whole in (fast, reference) for method in METHODS
]


NO_PENALTY, AS_THEY_ARE = np.zeros(1, np.float32), np.ones(1, np.float32)


def equal(got: Sequence[Hypothesis], wanted: Sequence[Hypothesis]) -> None:
    assert len(got) == len(wanted)
    for number, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
        assert (ours.tokens, ours.frames) == (theirs.tokens, theirs.frames), f"utterance {number}"
        np.testing.assert_allclose(ours.log_probs, theirs.log_probs, rtol=1e-5, err_msg=f"utterance {number}")
        assert ours.score == pytest.approx(theirs.score, rel=1e-6, abs=1e-5), f"utterance {number}"


def fast_equals_reference(network: ToyNetwork, options: DecodingOptions, lengths: list[int], seed: int = 0) -> None:
    encoder_out, lens = frames(lengths, seed)
    equal(fast(network, encoder_out, lens, options), reference(network, encoder_out, lens, options))


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
    """Vocabularies of any size, also with fewer tokens than the beam has places."""
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


@pytest.mark.parametrize(("whole", "method"), BOTH)
def test_frames_beyond_an_utterance_are_never_looked_at(whole: Whole, method: Method) -> None:
    """Padding is NaN in all these tests, which the network refuses; and a longer padding changes nothing."""
    network, options = ToyNetwork(), DecodingOptions(method)
    encoder_out, lens = frames(LENGTHS)
    padding = np.full((len(LENGTHS), 11, JOINER_DIM), np.nan, np.float32)
    longer = np.concatenate([encoder_out, padding], axis=1)
    equal(whole(network, longer, lens, options), whole(network, encoder_out, lens, options))


@pytest.mark.parametrize(("whole", "method"), BOTH)
def test_a_hypothesis_is_well_formed(whole: Whole, method: Method) -> None:
    """At most one token a frame, in order, never blank or unk, with the probabilities that they had."""
    network = ToyNetwork()
    for length, hypothesis in zip(LENGTHS, whole(network, *frames(LENGTHS), DecodingOptions(method)), strict=True):
        assert list(hypothesis.frames) == sorted(set(hypothesis.frames))
        assert all(0 <= frame < length for frame in hypothesis.frames)
        assert not {0, 2} & set(hypothesis.tokens)
        assert len(hypothesis.tokens) == len(hypothesis.frames) == len(hypothesis.log_probs)
        assert all(log_prob <= 0 for log_prob in hypothesis.log_probs)
        assert hypothesis.score <= 0
        assert all(isinstance(number, int) for number in (*hypothesis.tokens, *hypothesis.frames))


@pytest.mark.parametrize(("whole", "method"), BOTH)
def test_unk_is_heard_as_silence(whole: Whole, method: Method) -> None:
    """A network that knows only `<unk>` says nothing and never sees it in its context."""
    network = ToyNetwork(skipped_ids=(0, 2))
    network.bias[2] += 100
    for hypothesis in whole(network, *frames(LENGTHS), DecodingOptions(method)):
        assert hypothesis.tokens == ()
    assert all((context[:, -1] == 0).all() for context in network.contexts[:1])

    emitting = ToyNetwork(skipped_ids=(0,))
    emitting.bias[2] += 100
    hypotheses = whole(emitting, *frames(LENGTHS), DecodingOptions(method))
    assert [hypothesis.tokens for hypothesis in hypotheses] == [(2,) * length for length in LENGTHS]


@pytest.mark.parametrize(("whole", "method"), BOTH)
@pytest.mark.parametrize("context_size", [1, 2, 3])
def test_the_first_context(whole: Whole, method: Method, context_size: int) -> None:
    """[-1, ..., 0], as in Icefall's greedy_search_batch."""
    network = ToyNetwork(context_size=context_size)
    whole(network, *frames([2]), DecodingOptions(method))
    assert network.contexts[0].tolist()[0] == [-1] * (context_size - 1) + [0]


@pytest.mark.parametrize(("whole", "method"), BOTH)
def test_order_of_the_batch_does_not_matter(whole: Whole, method: Method) -> None:
    network, options = ToyNetwork(peaky=1.0), DecodingOptions(method)
    encoder_out, lens = frames(LENGTHS)
    wanted = whole(network, encoder_out, lens, options)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(LENGTHS))
        equal(whole(network, encoder_out[order], lens[order], options), [wanted[row] for row in order])


@pytest.mark.parametrize(("whole", "method"), BOTH)
def test_a_batch_is_its_utterances_one_by_one(whole: Whole, method: Method) -> None:
    network, options = ToyNetwork(peaky=1.0), DecodingOptions(method)
    encoder_out, lens = frames(LENGTHS)
    alone = [whole(network, encoder_out[row : row + 1], lens[row : row + 1], options)[0] for row in range(len(LENGTHS))]
    equal(whole(network, encoder_out, lens, options), alone)


@pytest.mark.parametrize(("whole", "method"), BOTH)
def test_the_input_is_left_alone(whole: Whole, method: Method) -> None:
    encoder_out, lens = frames(LENGTHS)
    before = encoder_out.copy(), lens.copy()
    whole(ToyNetwork(), encoder_out, lens, DecodingOptions(method, blank_penalty=1.0, temperature=2.0))
    np.testing.assert_array_equal(encoder_out, before[0])
    np.testing.assert_array_equal(lens, before[1])


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    """A single hypothesis has nothing to merge with."""
    network, (encoder_out, lens) = ToyNetwork(seed=seed, peaky=1.0), frames(LENGTHS, seed)
    greedy = fast(network, encoder_out, lens, DecodingOptions())
    equal(fast(network, encoder_out, lens, DecodingOptions("modified_beam_search", beam=1)), greedy)


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
            score += float(log_softmax(logits, NO_PENALTY, AS_THEY_ARE)[0, token])
            tokens = (*tokens, token) if token else tokens
        scores[tokens] = np.logaddexp(scores.get(tokens, -np.inf), score)
    best = max(scores, key=lambda tokens: scores[tokens] / (len(tokens) + 2))
    for whole in (fast, reference):
        [found] = whole(network, encoder_out, lens, options)
        assert found.tokens == best
        assert found.score == pytest.approx(scores[best], abs=1e-5)
    assert sum(np.exp(list(scores.values()))) == pytest.approx(1, abs=1e-5)


def test_greedy_score_is_the_sum_over_all_frames() -> None:
    network, (encoder_out, lens) = ToyNetwork(peaky=100.0), frames([20])
    [hypothesis] = fast(network, encoder_out, lens, DecodingOptions())
    [penalised] = fast(network, encoder_out, lens, DecodingOptions(blank_penalty=100.0))
    assert hypothesis.tokens == ()
    assert hypothesis.score == pytest.approx(0, abs=1e-5)
    assert penalised.tokens
    assert penalised.score < sum(penalised.log_probs) + 1e-5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("blank_penalty", [0.0, 2.0])
def test_log_softmax(temperature: float, blank_penalty: float) -> None:
    logits = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32) * 50
    before = logits.copy()
    penalties = np.array([blank_penalty, 0, blank_penalty], np.float32)
    sharpness = np.array([1, 1 / temperature, 1 / temperature], np.float32)
    got = log_softmax(logits, penalties, sharpness)
    exact = logits.astype(np.float64)
    exact[[0, 2], 0] -= blank_penalty
    exact[1:] /= temperature
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
    assert largest(totals, count).tolist() == wanted


# ------------------------------------------------------------------------------------------------- rows of options

EVERY_OPTION = [
    DecodingOptions(),
    DecodingOptions(blank_penalty=1.5, temperature=2.0),
    *(DecodingOptions("modified_beam_search", beam=beam) for beam in (1, 2, 4, 8)),
    DecodingOptions("modified_beam_search", beam=3, blank_penalty=-2.0),
    DecodingOptions("modified_beam_search", beam=32, temperature=0.5),
    DecodingOptions(temperature=0.5),
]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(EVERY_OPTION), st.integers(0, 20)), max_size=9),
    peaky=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 1000),
)
def test_each_row_is_searched_with_its_own_options(
    rows: list[tuple[DecodingOptions, int]], peaky: float, seed: int
) -> None:
    network = ToyNetwork(peaky=peaky, seed=seed)
    encoder_out, lens = frames([length for _, length in rows], seed)
    found = search(network, encoder_out, lens, RowOptions.of([options for options, _ in rows])).hypotheses()
    for row, (options, _) in enumerate(rows):
        one = slice(row, row + 1)
        equal([found[row]], reference(network, encoder_out[one], lens[one], options))


@pytest.mark.parametrize("method", METHODS)
def test_an_encoder_that_gives_nan_shows_in_the_score_of_its_row(method: Method) -> None:
    class Careless(ToyNetwork):
        def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
            logits: Floats = (np.tanh(encoder_out + decoder_out)[:, None, :] * self.output).sum(axis=-1) + self.bias
            return logits

    encoder_out, lens = frames([9, 9, 9])
    encoder_out[1, 4:] = np.nan
    options = RowOptions.of([DecodingOptions(method)] * 3)
    scores = search(Careless(), encoder_out, lens, options).scores[:, 0]
    assert np.isfinite(scores).tolist() == [True, False, True]


# ------------------------------------------------------------------------------------------------- piece by piece


class Streams:
    """Searches that go on, with their open hypotheses."""

    def __init__(
        self,
        network: ToyNetwork,
        options: Sequence[DecodingOptions],
        graphs: Sequence[Graphs] | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        count = len(options)
        self._options = RowOptions.of(options, graphs)
        self._searches = Searches(
            network, slots=count, places=self._options.places, joiner_dim=JOINER_DIM, fusion=fusion
        )
        self._said = OpenHypotheses(count, self._options.places, network.context_size)
        self._said.by_score[:] = self._options.prune_beams > 0
        self._num_frames = np.zeros(count, np.int64)
        self._fresh = np.ones(count, np.bool_)

    def advance(self, rows: Ints, encoder_out: Floats, lens: Ints) -> None:
        continuation = Continuation(rows, self._fresh[rows], self._said.decided[rows], self._said.kept[rows])
        found = self._searches.advance(continuation, encoder_out, lens, self._options.take(rows))
        self._said.advance(rows, found, self._num_frames[rows])
        self._fresh[rows] = False
        self._said.decided[rows] = -1
        self._num_frames[rows] += lens

    def take_back(self, row: int) -> None:
        server, request = self._options.graphs[row]
        self._said.take_back(row, (server, request), int(self._options.beams[row]))

    def drop(self, row: int, count: int) -> None:
        self._said.drop(row, count)

    def ranked(self, row: int, places: int) -> list[Hypothesis]:
        return self._said.ranked(row, places)

    @property
    def hypotheses(self) -> list[Hypothesis]:
        return [self._said.hypothesis(row) for row in range(len(self._options))]


@settings(max_examples=60, deadline=None)
@given(
    options=st.lists(st.sampled_from(EVERY_OPTION), min_size=3, max_size=3),
    peaky=st.sampled_from([0.0, 4.0, 9.0]),
    pieces=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_any_pieces_equal_the_whole(
    options: list[DecodingOptions], peaky: float, pieces: list[list[int]], seed: int
) -> None:
    """Three utterances whose frames come in pieces of different lengths, some of them empty."""
    network = ToyNetwork(peaky=peaky, seed=seed)
    lengths = [sum(column) for column in zip(*pieces, strict=True)]
    encoder_out, lens = frames(lengths, seed)
    streams = Streams(network, options)
    done = np.zeros(3, dtype=np.int64)
    for piece in pieces:
        chunk = np.full((3, max(piece), JOINER_DIM), np.nan, dtype=np.float32)
        for row, count in enumerate(piece):
            chunk[row, :count] = encoder_out[row, done[row] : done[row] + count]
        streams.advance(np.arange(3), chunk, np.array(piece))
        done += piece
    equal(streams.hypotheses, search_reference(network, encoder_out, lens, RowOptions.of(options)).hypotheses())


def test_utterances_come_and_go_between_pieces() -> None:
    """The utterances in a batch may change with every piece."""
    network = ToyNetwork(peaky=4.0)
    encoder_out, lens = frames([24] * 4)
    for method in METHODS:
        options = DecodingOptions(method)
        streams = Streams(network, [options] * 4)
        for first, rows in ((0, [0, 1]), (0, [3]), (8, [1, 0]), (0, [2]), (8, [2, 3]), (16, [3, 0, 2, 1])):
            streams.advance(np.array(rows), encoder_out[rows, first : first + 8], np.full(len(rows), 8))
        equal(streams.hypotheses, reference(network, encoder_out, lens, options))


@pytest.mark.parametrize("options", EVERY_OPTION[:6], ids=str)
def test_the_search_goes_on_with_the_hypothesis_that_was_decided_for(options: DecodingOptions) -> None:
    """It has that hypothesis's context and no other hypothesis; a beam of one, which decides at every frame, finds the
    same."""
    network = ToyNetwork(peaky=2.0, seed=1)
    encoder_out, lens = frames([48])
    streams, dropped = Streams(network, [options]), 0
    tokens: tuple[int, ...] = ()
    for first in range(0, 48, 8):
        streams.advance(np.array([0]), encoder_out[:, first : first + 8], np.array([8]))
        [said] = streams.hypotheses
        tokens += said.tokens
        streams.drop(0, len(said.tokens))
        dropped += len(said.tokens)
        assert streams.hypotheses == [Hypothesis((), (), (), 0.0)]
    assert dropped > 3
    if options.method == "greedy" or options.beam == 1:
        assert tokens == reference(network, encoder_out, lens, options)[0].tokens


def test_a_narrow_search_in_the_slot_of_a_wide_one_beside_a_wide_one() -> None:
    """Old hypotheses in the slot's further places are never used."""
    network, wide = ToyNetwork(), DecodingOptions("modified_beam_search", beam=6)
    encoder_out, lens = frames([16] * 2)
    searches = Searches(network, slots=2, places=6, joiner_dim=JOINER_DIM)
    for narrow in (DecodingOptions(), DecodingOptions("modified_beam_search", beam=2)):
        searches.advance(Continuation.beginning(2), encoder_out, lens, RowOptions.of([wide] * 2))
        said = OpenHypotheses(1, 6, network.context_size)
        for first, last in ((0, 8), (8, 16)):
            company = 2 if first else 1
            continuation = Continuation(
                np.arange(company),
                np.array([not first, True][:company]),
                np.full(company, -1, np.int32),
                np.zeros(company, np.int32),
            )
            options = RowOptions.of([narrow, wide][:company])
            chunk = encoder_out[:company, first:last]
            found = searches.advance(continuation, chunk, np.full(company, 8), options)
            said.advance(
                np.array([0]), Found(*(getattr(found, field.name)[:1] for field in fields(found))), np.array([first])
            )
        equal([said.hypothesis(0)], reference(network, encoder_out[:1], lens[:1], narrow))


def test_a_network_that_fails_leaves_the_searches_where_they_are() -> None:
    class Failing(ToyNetwork):
        fails = False

        def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
            if self.fails:
                raise EngineError("out of memory")
            return super().joiner(encoder_out, decoder_out)

    network, options = Failing(peaky=1.0), EVERY_OPTION[:4]
    encoder_out, lens = frames([16] * 4)
    streams, rows = Streams(network, options), np.arange(4)
    streams.advance(rows, encoder_out[:, :8], np.full(4, 8))
    network.fails = True
    with pytest.raises(EngineError):
        streams.advance(rows, encoder_out[:, 8:], np.full(4, 8))
    network.fails = False
    streams.advance(rows, encoder_out[:, 8:], np.full(4, 8))
    equal(streams.hypotheses, search_reference(network, encoder_out, lens, RowOptions.of(options)).hypotheses())
