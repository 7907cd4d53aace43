"""Searches of a CTC head: greedy by hand, prefix beam search by counting all paths of small lattices."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.arrays import Floats
from moulin.decoding.ctc import CtcSearches, search_ctc
from moulin.decoding.found import Hypothesis
from moulin.decoding.hypotheses import OpenHypotheses
from moulin.decoding.options import MAX_BEAM, METHODS, DecodingOptions, Method
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation

Lattice = Floats
BLANK = (0,)
SHARES = (0.0, 0.3, 0.6, 0.95, 1.0)
"""Parts of the frames in which the head is sure of blank."""


def lattice(frames: int, vocab_size: int, seed: int, sharpness: float = 1.0) -> Lattice:
    """Random log-probabilities [frames, vocab_size]."""
    logits = sharpness * np.random.default_rng(seed).standard_normal((frames, vocab_size))
    log_probs: Lattice = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)
    return log_probs


def with_blanks(log_probs: Lattice, share: float) -> Lattice:
    """`log_probs` with a blank of 0.97 in `share` of the frames, spread over them."""
    frames = len(log_probs)
    sure = np.linspace(0, frames, round(share * frames), endpoint=False).astype(int)
    logits = log_probs.copy()
    logits[sure, 0] = np.log(0.97 / 0.03) + np.logaddexp.reduce(logits[sure, 1:], axis=1)
    return np.asarray(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), np.float32)


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(path) if token)


def all_paths(log_probs: Lattice) -> dict[tuple[int, ...], float]:
    """The log-probability of every sequence of tokens: the sum over all of its paths."""
    frames, vocab_size = log_probs.shape
    sums: dict[tuple[int, ...], float] = defaultdict(lambda: -np.inf)
    for path in itertools.product(range(vocab_size), repeat=frames):
        score = sum(float(log_probs[frame, token]) for frame, token in enumerate(path))
        sums[collapsed(path)] = float(np.logaddexp(sums[collapsed(path)], score))
    return sums


def found_in(log_probs: Lattice, options: DecodingOptions, skipped_ids: tuple[int, ...] = BLANK) -> Hypothesis:
    [found] = search_ctc(
        log_probs[None], np.array([len(log_probs)]), RowOptions.of([options]), skipped_ids
    ).hypotheses()
    return found


@settings(max_examples=80, deadline=None)
@given(
    size=st.sampled_from([(1, 2), (4, 2), (6, 2), (4, 3), (5, 3), (3, 4), (3, 5)]),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.0, 0.5, 2.0, 8.0]),
    share=st.sampled_from(SHARES),
)
def test_prefix_beam_search_finds_the_most_probable_tokens_of_all_paths(
    size: tuple[int, int], seed: int, sharpness: float, share: float
) -> None:
    log_probs = with_blanks(lattice(*size, seed, sharpness), share)
    wanted = all_paths(log_probs)
    found = found_in(log_probs, DecodingOptions("modified_beam_search", beam=MAX_BEAM))
    best = max(wanted.values())
    # With a beam of 32 of at most 85 sequences, those that are left out are hardly ever among the best.
    assert found.score == pytest.approx(best, abs=0.02 if len(wanted) > MAX_BEAM else 1e-5)
    if len(wanted) <= MAX_BEAM:
        assert wanted[found.tokens] == pytest.approx(best, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 4), share=st.sampled_from(SHARES))
def test_every_prefix_has_the_sum_of_all_of_its_paths(seed: int, frames: int, share: float) -> None:
    """All places, where no prefix falls out of the beam."""
    log_probs = with_blanks(lattice(frames, 3, seed), share)
    wanted = all_paths(log_probs)
    assert len(wanted) <= MAX_BEAM
    searches = CtcSearches(slots=1, skipped_ids=BLANK)
    options = RowOptions.of([DecodingOptions("modified_beam_search", beam=MAX_BEAM)])
    found = searches.advance(Continuation.beginning(1), log_probs[None], np.array([frames]), options)
    ours = {
        tuple(found.tokens[0, place, : found.counts[0, place]].tolist()): float(found.scores[0, place])
        for place in range(MAX_BEAM)
        if np.isfinite(found.scores[0, place])
    }
    assert ours.keys() == wanted.keys()
    for tokens, score in wanted.items():
        assert ours[tokens] == pytest.approx(score, abs=1e-5), tokens
    assert float(np.logaddexp.reduce(list(ours.values()))) == pytest.approx(0.0, abs=1e-5)


def test_a_lattice_whose_best_path_is_not_its_most_probable_text() -> None:
    log_probs = np.log(np.array([[0.4, 0.35, 0.25], [0.4, 0.35, 0.25]], np.float32))
    # Blank blank is the best path, 0.16; "1" is 0.35² + 2 · 0.4 · 0.35 = 0.4025.
    assert found_in(log_probs, DecodingOptions()).tokens == ()
    beam = found_in(log_probs, DecodingOptions("modified_beam_search"))
    assert beam.tokens == (1,)
    assert np.exp(beam.score) == pytest.approx(0.4025)


@pytest.mark.parametrize("method", METHODS)
def test_repetitions_and_the_frames_of_tokens(method: Method) -> None:
    path = [0, 1, 1, 0, 1, 2, 2, 3, 0, 0]
    log_probs = np.full((len(path), 4), np.log(0.01), np.float32)
    log_probs[np.arange(len(path)), path] = np.log(0.97)
    found = found_in(log_probs, DecodingOptions(method))
    assert (found.tokens, found.frames) == ((1, 1, 2, 3), (1, 4, 5, 7))
    assert np.exp(found.log_probs) == pytest.approx([0.97] * 4)
    # An unknown word separates as any other token, and is not emitted.
    without = found_in(log_probs, DecodingOptions(method), skipped_ids=(0, 2))
    assert (without.tokens, without.frames) == ((1, 1, 3), (1, 4, 7))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("piece", [1, 3, 8, 50])
def test_a_search_goes_on_where_it_stopped(method: Method, piece: int) -> None:
    """Rows of different lengths and methods together, in any pieces, as alone."""
    rows = np.stack([lattice(40, 6, seed, 3.0) for seed in range(4)])
    options = [DecodingOptions(method, beam=3), DecodingOptions("modified_beam_search", beam=5), DecodingOptions()]
    options.append(DecodingOptions(method, beam=2, blank_penalty=1.0, temperature=2.0))
    wanted = [found_in(row, chosen) for row, chosen in zip(rows, options, strict=True)]
    chosen = RowOptions.of(options)
    searches = CtcSearches(slots=4, skipped_ids=BLANK)
    said = OpenHypotheses(4, MAX_BEAM, None)
    for first in range(0, 40, piece):
        going = replace(Continuation.beginning(4), fresh=np.full(4, first == 0))
        part = rows[:, first : first + piece]
        found = searches.advance(going, part, np.full(4, part.shape[1]), chosen)
        said.advance(np.arange(4), found, np.full(4, first))
    for slot, other in enumerate(wanted):
        ours = said.hypothesis(slot)
        assert (ours.tokens, ours.frames) == (other.tokens, other.frames), slot
        assert ours.score == pytest.approx(other.score, abs=1e-3)
    together = search_ctc(rows, np.full(4, 40), chosen, BLANK).hypotheses()
    assert [each.tokens for each in together] == [each.tokens for each in wanted]


@pytest.mark.parametrize("method", METHODS)
def test_frames_beyond_a_length_are_not_decoded(method: Method) -> None:
    rows = np.stack([lattice(30, 5, seed, 3.0) for seed in range(3)])
    lengths = np.array([30, 0, 11])
    options = RowOptions.of([DecodingOptions(method)] * 3)
    whole = search_ctc(rows, lengths, options, BLANK).hypotheses()
    assert whole[1].tokens == ()
    assert whole[2].tokens == found_in(rows[2, :11], DecodingOptions(method)).tokens


@pytest.mark.parametrize("method", METHODS)
def test_nan_gives_no_finite_score(method: Method) -> None:
    rows = lattice(10, 4, 0)
    rows[3] = np.nan
    options = RowOptions.of([DecodingOptions(method)])
    found = search_ctc(rows[None], np.array([10]), options, BLANK)
    assert not np.isfinite(found.scores[:, 0]).any()
