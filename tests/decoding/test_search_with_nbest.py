"""The hypotheses beside the best: against the reference, and against the sum over all paths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.arrays import Floats
from moulin.decoding.ctc import search_ctc
from moulin.decoding.found import Found, Hypothesis
from moulin.decoding.hypotheses import OpenHypotheses
from moulin.decoding.network import initial_context, log_softmax
from moulin.decoding.options import DecodingOptions
from moulin.decoding.reference import search_reference
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search

from .test_search import Streams, equal
from .toy_network import ToyNetwork, frames

WIDEST = DecodingOptions("modified_beam_search", beam=32, nbest=10)


def every_path(network: ToyNetwork, encoder_out: Floats) -> Iterator[tuple[tuple[int, ...], float]]:
    """The tokens and log-probability of each choice of a token or blank in every frame."""
    for path in product(range(network.vocab_size), repeat=len(encoder_out)):
        context, log_prob = initial_context(network.context_size), 0.0
        said: list[int] = []
        for frame, token in zip(encoder_out, path, strict=True):
            decoder_out = network.decoder(np.array([context], np.int64))
            logits = network.joiner(frame[None], decoder_out)
            log_prob += float(log_softmax(logits, np.zeros(1, np.float32), np.ones(1, np.float32))[0, token])
            if token not in network.skipped_ids:
                said.append(token)
                context = [*context[1:], token]
        yield tuple(said), log_prob


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_sums_over_all_paths(seed: int) -> None:
    """Three tokens, of which one is blank, and three frames: 15 sequences, of at most 21 extensions."""
    network, (encoder_out, lens) = ToyNetwork(vocab_size=3, seed=seed, skipped_ids=(0,)), frames([3], seed)
    sums: dict[tuple[int, ...], float] = defaultdict(lambda: -np.inf)
    for tokens, log_prob in every_path(network, encoder_out[0]):
        sums[tokens] = float(np.logaddexp(sums[tokens], log_prob))
    options = RowOptions.of([WIDEST])
    [best] = search(network, encoder_out, lens, options).hypotheses(options.wants_others)
    found = [best, *best.others]
    assert len(found) == len(sums) == 15
    for one in found:
        assert one.score == pytest.approx(sums[one.tokens], abs=1e-5)
    of_each_token = [one.score / (len(one.tokens) + network.context_size) for one in found]
    assert of_each_token == sorted(of_each_token, reverse=True)


OPTIONS = [
    DecodingOptions(),
    DecodingOptions(nbest=3),
    DecodingOptions("modified_beam_search", beam=2),
    DecodingOptions("modified_beam_search", nbest=10),
    DecodingOptions("modified_beam_search", beam=8, nbest=2, temperature=2.0),
]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(OPTIONS), st.integers(0, 20)), max_size=5),
    peaky=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 1000),
)
def test_others_as_the_reference_has_them(rows: list[tuple[DecodingOptions, int]], peaky: float, seed: int) -> None:
    network = ToyNetwork(peaky=peaky, seed=seed)
    encoder_out, lens = frames([length for _, length in rows], seed)
    options = RowOptions.of([chosen for chosen, _ in rows])
    found = search(network, encoder_out, lens, options).hypotheses(options.wants_others)
    wanted = search_reference(network, encoder_out, lens, options).hypotheses(options.wants_others)
    equal(found, wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        # Equal scores may come in another order after a merge.
        equal(sorted(ours.others, key=_tokens), sorted(theirs.others, key=_tokens))


def _tokens(one: Hypothesis) -> tuple[int, ...]:
    return one.tokens


def test_a_row_that_wants_others_changes_nothing_for_its_neighbours() -> None:
    network, (encoder_out, lens) = ToyNetwork(peaky=1.0), frames([20, 20, 20])
    alone = RowOptions.of([OPTIONS[0], OPTIONS[2], OPTIONS[2]])
    beside = RowOptions.of([OPTIONS[0], OPTIONS[2], OPTIONS[3]])
    plain = search(network, encoder_out, lens, alone).hypotheses()
    found = search(network, encoder_out, lens, beside).hypotheses(beside.wants_others)
    assert found[:2] == plain[:2]
    assert found[2].others


def test_the_beam_is_as_wide_as_nbest() -> None:
    rows = RowOptions.of([DecodingOptions(nbest=2), DecodingOptions(nbest=10), DecodingOptions(beam=7)])
    assert rows.beams.tolist() == [4, 10, 0]


def test_streams_have_what_whole_utterances_have() -> None:
    network, (encoder_out, _) = ToyNetwork(peaky=1.0, seed=3), frames([24], 3)
    options = DecodingOptions("modified_beam_search", beam=6, nbest=6)
    streams = Streams(network, [options])
    assert [one.tokens for one in streams.ranked(0, 6)] == [()]
    for begin in range(0, 24, 6):
        streams.advance(np.array([0]), encoder_out[:, begin : begin + 6], np.array([6]))
    rows = RowOptions.of([options])
    [whole] = search(network, encoder_out, np.array([24]), rows).hypotheses(rows.wants_others)
    equal(streams.ranked(0, 6), [whole, *whole.others])
    streams.drop(0, 1)
    assert [one.tokens for one in streams.ranked(0, 6)] == [whole.tokens[1:]]


def test_a_ctc_heads_prefixes() -> None:
    """Four frames of three tokens: each prefix has the sum over its alignments."""
    log_probs = log_softmax(
        np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32), np.zeros(4, np.float32), np.ones(4, np.float32)
    )
    sums: dict[tuple[int, ...], float] = defaultdict(lambda: -np.inf)
    for path in product(range(3), repeat=4):
        said = tuple(token for at, token in enumerate(path) if token and (at == 0 or path[at - 1] != token))
        sums[said] = float(np.logaddexp(sums[said], log_probs[np.arange(4), path].sum()))
    options = RowOptions.of([WIDEST])
    [best] = search_ctc(log_probs[None], np.array([4]), options, (0,)).hypotheses(options.wants_others)
    found = [best, *best.others]
    assert {one.tokens: pytest.approx(one.score, abs=1e-5) for one in found} == sums
    assert [one.score for one in found] == pytest.approx(sorted(sums.values(), reverse=True), abs=1e-5)


def test_of_equal_lengths_or_none() -> None:
    found = Found.nothing(2, 3, 2)
    found.scores[:], found.counts[:] = [[-4.0, -3.0, -np.inf], [-1.0, -2.0, -9.0]], [[2, 0, 0], [0, 2, 2]]
    assert found.ranked(1).scores.tolist() == [[-4.0, -3.0, -np.inf], [-2.0, -1.0, -9.0]]
    assert found.ranked(1, np.array([True, True])).scores.tolist() == [[-3.0, -4.0, -np.inf], [-1.0, -2.0, -9.0]]
    assert OpenHypotheses(1, 2, 2).ranked(0, 2) == [Hypothesis((), (), (), 0.0)]
