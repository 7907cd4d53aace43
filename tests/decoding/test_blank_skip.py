"""Frames that the CTC head takes for blank, left out of the search: the fast searches against the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.arrays import Floats, Ints
from moulin.decoding.blank_skip import skip_blanks, with_blank
from moulin.decoding.hypotheses import OpenHypotheses
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.decoding.reference import search_reference
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation, Searches, search
from moulin.errors import OptionsError

from .test_search import equal
from .toy_network import JOINER_DIM, ToyNetwork, frames


def heard(lengths: list[int], seed: int, share: float) -> tuple[Floats, Ints]:
    """Random encoder frames with a channel of blank, of which `share` are above a probability of 0.9."""
    encoder_out, lens = frames(lengths, seed)
    rng = np.random.default_rng(seed + 1)
    blank = np.where(rng.random(encoder_out.shape[:2]) < share, 0.99, 0.5)
    return with_blank(encoder_out, np.log(blank)[..., None]), lens


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 25), min_size=1, max_size=6),
    share=st.sampled_from([0.0, 0.3, 0.6, 0.95, 1.0]),
    methods=st.lists(st.sampled_from(METHODS), min_size=6, max_size=6),
    skips=st.lists(st.sampled_from([None, 0.9]), min_size=6, max_size=6),
    seed=st.integers(0, 99),
)
def test_the_searches_skip_what_the_reference_skips(
    lengths: list[int], share: float, methods: list[Method], skips: list[float | None], seed: int
) -> None:
    encoder_out, lens = heard(lengths, seed, share)
    network = ToyNetwork(seed=seed, peaky=1.0)
    options = RowOptions.of(
        [
            DecodingOptions(method, beam=3, blank_skip=skip)
            for method, skip in zip(methods[: len(lengths)], skips, strict=False)
        ]
    )
    equal(
        search(network, encoder_out, lens, options, JOINER_DIM).hypotheses(),
        search_reference(network, encoder_out, lens, options, JOINER_DIM).hypotheses(),
    )


@pytest.mark.parametrize("method", METHODS)
def test_what_is_left_is_searched_as_if_nothing_else_had_been_said(method: Method) -> None:
    encoder_out, lens = heard([40], 7, 0.6)
    network = ToyNetwork(seed=3)
    left = np.flatnonzero(encoder_out[0, :, -1] < np.log(0.9))
    assert 5 < len(left) < 35
    options = RowOptions.of([DecodingOptions(method, blank_skip=0.9)])
    [found] = search(network, encoder_out, lens, options, JOINER_DIM).hypotheses()
    [alone] = search(
        network, encoder_out[:, left, :JOINER_DIM], np.array([len(left)]), RowOptions.of([DecodingOptions(method)])
    ).hypotheses()
    assert found.tokens == alone.tokens
    assert found.frames == tuple(left[list(alone.frames)].tolist())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.3, 0.95, 1.0])
def test_a_search_goes_on_over_pieces_of_which_whole_ones_are_skipped(method: Method, share: float) -> None:
    encoder_out, lens = heard([64, 64, 64], 5, share)
    encoder_out[1, 8:24, -1] = 0.0  # two whole pieces of blank
    network = ToyNetwork(seed=2)
    options = RowOptions.of([DecodingOptions(method, blank_skip=0.9)] * 3)
    whole = search(network, encoder_out, lens, options, JOINER_DIM).hypotheses()
    searches = Searches(network, slots=3, places=options.places, joiner_dim=JOINER_DIM)
    said = OpenHypotheses(3, options.places, network.context_size)
    slots = np.arange(3)
    for piece in range(0, 64, 8):
        going = replace(Continuation.beginning(3), fresh=np.full(3, piece == 0))
        found = searches.advance(going, encoder_out[:, piece : piece + 8], np.full(3, 8), options)
        said.advance(slots, found, np.full(3, piece))
    equal([said.hypothesis(slot) for slot in range(3)], whole)


def test_nothing_is_skipped_by_default_nor_without_the_channel() -> None:
    encoder_out, lens = heard([20], 0, 1.0)
    left = skip_blanks(encoder_out, lens, RowOptions.defaults(1), JOINER_DIM)
    assert (left.frames, left.lengths.tolist(), left.encoder_out.shape) == (None, [20], (1, 20, JOINER_DIM))
    options = RowOptions.of([DecodingOptions(blank_skip=0.9)])
    assert skip_blanks(encoder_out[..., :JOINER_DIM], lens, options, JOINER_DIM).lengths.tolist() == [20]
    assert skip_blanks(encoder_out, lens, options, JOINER_DIM).lengths.tolist() == [0]


def test_nan_is_not_taken_for_blank() -> None:
    """It must reach the search, where it is an error."""
    encoder_out, lens = heard([20], 0, 1.0)
    encoder_out[0, 3] = np.nan
    options = RowOptions.of([DecodingOptions(blank_skip=0.9)])
    left = skip_blanks(encoder_out, lens, options, JOINER_DIM)
    assert left.lengths.tolist() == [1]
    assert np.isnan(left.encoder_out).all()


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1, float("nan"), True, "0.9", [0.9]])
def test_what_is_no_probability_is_refused(value: object) -> None:
    with pytest.raises(OptionsError, match=r"Expected blank-skip (above 0 and below 1|to be a number), got"):
        DecodingOptions().updated({"blank_skip": value})


def test_json() -> None:
    assert DecodingOptions().updated_from_json('{"blank_skip": 0.95}').blank_skip == 0.95
    assert DecodingOptions(blank_skip=0.95).updated_from_json('{"blank_skip": null}').blank_skip is None
