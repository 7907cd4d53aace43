"""Searches with hotwords against the reference, whose automaton is the plain one."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.found import Found, Hypothesis
from moulin.decoding.options import DecodingOptions
from moulin.decoding.reference import search_reference
from moulin.decoding.row_graphs import NO_GRAPHS, Graphs
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search

from .test_search import Streams, equal
from .toy_network import ToyNetwork, frames

TOKENS = st.lists(st.integers(3, 10), min_size=1, max_size=4).map(tuple)
GRAPH = st.one_of(
    st.none(), st.dictionaries(TOKENS, st.sampled_from([0.5, 1.5, 4.0]), min_size=1, max_size=12).map(ContextGraph.of)
)
GRAPHS = st.tuples(GRAPH, GRAPH)
OPTIONS = [
    DecodingOptions(),
    *(DecodingOptions("modified_beam_search", beam=beam) for beam in (1, 2, 4, 8)),
    DecodingOptions("modified_beam_search", beam=3, blank_penalty=-2.0, temperature=2.0),
]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(OPTIONS), GRAPHS, st.integers(0, 20)), max_size=6),
    peaky=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 1000),
)
def test_each_row_has_its_own_graphs(rows: list[tuple[DecodingOptions, Graphs, int]], peaky: float, seed: int) -> None:
    """Some have none, some the server's, some their own, some both."""
    network = ToyNetwork(peaky=peaky, seed=seed)
    encoder_out, lens = frames([length for *_, length in rows], seed)
    options = RowOptions.of([chosen for chosen, *_ in rows], [graphs for _, graphs, _ in rows])
    found = search(network, encoder_out, lens, options).hypotheses()
    equal(found, search_reference(network, encoder_out, lens, options).hypotheses())


def test_many_rows_with_as_many_graphs() -> None:
    """256 of them in one batch, each as it is alone."""
    rng = np.random.default_rng(0)
    network, (encoder_out, lens) = ToyNetwork(vocab_size=40, peaky=1.0), frames([12] * 256)
    graphs: list[Graphs] = [
        (None, ContextGraph.of({tuple(row): 2.0 for row in rng.integers(3, 40, (20, 2)).tolist()})) for _ in range(256)
    ]
    options = DecodingOptions("modified_beam_search")
    together = search(network, encoder_out, lens, RowOptions.of([options] * 256, graphs)).hypotheses()
    plain = search(network, encoder_out, lens, RowOptions.of([options] * 256)).hypotheses()
    for row in range(256):
        one = slice(row, row + 1)
        alone = search(network, encoder_out[one], lens[one], RowOptions.of([options], graphs[one])).hypotheses()
        equal(together[one], alone)
    assert sum(one.tokens != other.tokens for one, other in zip(together, plain, strict=True)) > 50


@settings(max_examples=40, deadline=None)
@given(
    graphs=st.lists(GRAPHS, min_size=3, max_size=3),
    options=st.lists(st.sampled_from(OPTIONS), min_size=3, max_size=3),
    pieces=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_any_pieces_equal_the_whole(
    graphs: list[Graphs], options: list[DecodingOptions], pieces: list[list[int]], seed: int
) -> None:
    network = ToyNetwork(peaky=2.0, seed=seed)
    lengths = np.array([sum(column) for column in zip(*pieces, strict=True)])
    encoder_out, _ = frames(lengths.tolist(), seed)
    in_pieces, whole = Streams(network, options, graphs), Streams(network, options, graphs)
    whole.advance(np.arange(3), encoder_out, lengths)
    done = np.zeros(3, dtype=np.int64)
    for piece in pieces:
        chunk = np.zeros((3, max(piece), encoder_out.shape[2]), dtype=np.float32)
        for row, count in enumerate(piece):
            chunk[row, :count] = encoder_out[row, done[row] : done[row] + count]
        in_pieces.advance(np.arange(3), chunk, np.array(piece))
        done += piece
    equal(in_pieces.hypotheses, whole.hypotheses)


def test_a_phrase_begins_anew_behind_a_closed_segment() -> None:
    """What a search has been given before is neither taken back nor goes on."""
    network = ToyNetwork(vocab_size=300, peaky=-100.0, seed=7)  # a token in every frame
    encoder_out, _ = frames([8], 3)

    def two_segments(graphs: Graphs) -> list[Hypothesis]:
        streams, segments = Streams(network, [DecodingOptions("modified_beam_search", beam=4)], [graphs]), []
        for half in (encoder_out[:, :4], encoder_out[:, 4:]):
            streams.advance(np.array([0]), half, np.array([4]))
            segments += streams.hypotheses
            streams.drop(0, 4)
        return segments

    plain = two_segments(NO_GRAPHS)
    said = plain[0].tokens + plain[1].tokens
    assert said[0] not in said[1:], "the phrase cannot begin once more"
    biased = two_segments((None, ContextGraph.of({said: 0.01})))
    assert [segment.tokens for segment in biased] == [segment.tokens for segment in plain]
    assert biased[0].score == pytest.approx(plain[0].score + 0.04, abs=0.005)
    assert biased[1].score == pytest.approx(plain[1].score, abs=0.005)


@pytest.mark.parametrize("seed", [0, 1, 3, 4])
def test_hotwords_are_heard(seed: int) -> None:
    """A phrase with a large bonus, of tokens that the network finds possible, is in the text."""
    network, (encoder_out, lens) = ToyNetwork(seed=seed), frames([20], seed)
    phrase = (5, 7)
    options = DecodingOptions("modified_beam_search", beam=8)
    graphs: Graphs = (None, ContextGraph.of({phrase: 20.0}))
    [found] = search(network, encoder_out, lens, RowOptions.of([options], [graphs])).hypotheses()
    assert phrase in zip(found.tokens, found.tokens[1:], strict=False)
    [plain] = search(network, encoder_out, lens, RowOptions.of([options])).hypotheses()
    assert found.tokens != plain.tokens
    assert found.score > 0, "the bonus is part of the score"
    assert max(found.log_probs) <= 0, "and not of a token's probability"


def test_an_open_phrase_has_no_bonus_in_the_end() -> None:
    """A phrase whose beginning alone is said: its bonus must not decide for a hypothesis."""
    network, (encoder_out, lens) = ToyNetwork(peaky=-100.0, seed=4), frames([5], 4)
    options = DecodingOptions("modified_beam_search", beam=8)
    [plain] = search(network, encoder_out, lens, RowOptions.of([options])).hypotheses()
    graphs: Graphs = (None, ContextGraph.of({(*plain.tokens, 3, 4): 2.0}))
    [found] = search(network, encoder_out, lens, RowOptions.of([options], [graphs])).hypotheses()
    assert found.tokens == plain.tokens
    assert found.score == pytest.approx(plain.score, abs=1.0), "up to hypotheses that were merged into it"


@settings(max_examples=40, deadline=None)
@given(graphs=GRAPHS, beam=st.sampled_from([2, 4, 8]), cut=st.integers(0, 16), seed=st.integers(0, 1000))
def test_a_stream_that_ends_has_what_the_whole_has(graphs: Graphs, beam: int, cut: int, seed: int) -> None:
    """Its open phrases are taken back by their tokens, where the reference asks its automaton."""
    network, (encoder_out, lens) = ToyNetwork(seed=seed), frames([16], seed)
    options = DecodingOptions("modified_beam_search", beam=beam)
    streams = Streams(network, [options], [graphs])
    for piece in (encoder_out[:, :cut], encoder_out[:, cut:]):
        streams.advance(np.array([0]), piece, np.array([piece.shape[1]]))
    streams.take_back(0)
    rows = RowOptions.of([options], [graphs])
    equal(streams.hypotheses, search_reference(network, encoder_out, lens, rows).hypotheses())


def test_tokens_that_a_segment_left_over_hold_no_bonus() -> None:
    """Phrases have begun anew behind them, and the search has forgotten what they were given."""
    network, (encoder_out, _) = ToyNetwork(vocab_size=300, peaky=-100.0, seed=0), frames([6], 3)

    def second_segment(graphs: Graphs) -> Streams:
        streams = Streams(network, [DecodingOptions("modified_beam_search", beam=2)], [graphs])
        streams.advance(np.array([0]), encoder_out[:, :4], np.array([4]))
        streams.drop(0, 3)
        streams.advance(np.array([0]), encoder_out[:, 4:], np.array([2]))
        return streams

    [said] = [one.tokens for one in second_segment(NO_GRAPHS).hypotheses]
    assert said[0] not in said[1:], "the phrase cannot begin once more"
    streams = second_segment((ContextGraph.of({(*said, 299): 0.01}), None))
    [before] = streams.hypotheses
    assert before.tokens == said
    streams.take_back(0)
    assert streams.hypotheses == [before]


def test_a_row_with_hotwords_is_searched_with_a_beam() -> None:
    graph = ContextGraph.of({(3, 4): 1.5})
    rows = RowOptions.of([DecodingOptions(), DecodingOptions(beam=6)], [NO_GRAPHS, (graph, None)])
    assert rows.beams.tolist() == [0, 6]


def test_a_neighbour_with_hotwords_changes_nothing() -> None:
    """Exactly: a row without has the numbers that it has alone."""
    network, (encoder_out, lens) = ToyNetwork(peaky=1.0), frames([20, 20])
    options = DecodingOptions("modified_beam_search")
    graphs: Graphs = (None, ContextGraph.of({(3, 4): 1.5}))
    beside = search(network, encoder_out, lens, RowOptions.of([options] * 2, [NO_GRAPHS, graphs]))
    plain = search(network, encoder_out, lens, RowOptions.of([options] * 2))
    for field in fields(Found):
        np.testing.assert_array_equal(getattr(beside, field.name)[0], getattr(plain, field.name)[0])


def test_where_the_network_fails_the_states_stay() -> None:
    class Failing(ToyNetwork):
        fails = False

        def joiner(self, encoder_out, decoder_out):  # type: ignore[no-untyped-def]
            if self.fails:
                raise RuntimeError("no network")
            return super().joiner(encoder_out, decoder_out)

    network, (encoder_out, _) = Failing(peaky=1.0), frames([16])
    options = replace(DecodingOptions("modified_beam_search"), beam=4)
    graphs: Graphs = (ContextGraph.of({(3, 4, 5): 3.0, (6,): 1.0}), None)
    one, other = (Streams(network, [options], [graphs]) for _ in range(2))
    for streams in (one, other):
        streams.advance(np.array([0]), encoder_out[:, :8], np.array([8]))
    network.fails = True
    with pytest.raises(RuntimeError):
        one.advance(np.array([0]), encoder_out[:, 8:], np.array([8]))
    network.fails = False
    for streams in (one, other):
        streams.advance(np.array([0]), encoder_out[:, 8:], np.array([8]))
    equal(one.hypotheses, other.hypotheses)
