"""Fast beam search: against its definition, against k2, and what it shares with the other searches."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.decoding.options import DecodingOptions
from moulin.decoding.reference import search_reference
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation, Searches, search

from .test_search import Streams, equal
from .toy_network import JOINER_DIM, ToyNetwork, frames

DATA = Path(__file__).parent.parent / "data" / "k2"
FAST = [
    DecodingOptions("fast_beam_search"),
    DecodingOptions("fast_beam_search", beam=20, max_contexts=8, max_states=64),
    DecodingOptions("fast_beam_search", beam=1, max_contexts=32),
    DecodingOptions("fast_beam_search", beam=8, max_contexts=3, max_states=3, temperature=2.0, blank_penalty=1.0),
]
OTHERS = [DecodingOptions(), DecodingOptions("modified_beam_search", beam=3)]


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from([*FAST, *FAST, *OTHERS]), st.integers(0, 20)), max_size=6),
    context_size=st.integers(1, 3),
    vocab_size=st.sampled_from([3, 11, 40]),
    peaky=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 1000),
)
def test_as_it_is_defined(
    rows: list[tuple[DecodingOptions, int]], context_size: int, vocab_size: int, peaky: float, seed: int
) -> None:
    """Beside rows of the other searches."""
    network = ToyNetwork(vocab_size, context_size, seed, peaky)
    encoder_out, lens = frames([length for _, length in rows], seed)
    options = RowOptions.of([chosen for chosen, _ in rows])
    found = search(network, encoder_out, lens, options).hypotheses()
    equal(found, search_reference(network, encoder_out, lens, options).hypotheses())


@settings(max_examples=30, deadline=None)
@given(
    options=st.lists(st.sampled_from([*FAST, *OTHERS]), min_size=3, max_size=3),
    pieces=st.lists(st.lists(st.integers(0, 7), min_size=3, max_size=3), min_size=1, max_size=5),
    seed=st.integers(0, 100),
)
def test_any_pieces_equal_the_whole(options: list[DecodingOptions], pieces: list[list[int]], seed: int) -> None:
    network = ToyNetwork(peaky=1.0, seed=seed)
    lengths = np.array([sum(column) for column in zip(*pieces, strict=True)])
    encoder_out, _ = frames(lengths.tolist(), seed)
    in_pieces = Streams(network, options)
    done = np.zeros(3, dtype=np.int64)
    for piece in pieces:
        chunk = np.zeros((3, max(piece), JOINER_DIM), dtype=np.float32)
        for row, count in enumerate(piece):
            chunk[row, :count] = encoder_out[row, done[row] : done[row] + count]
        in_pieces.advance(np.arange(3), chunk, np.array(piece))
        done += piece
    equal(in_pieces.hypotheses, search(network, encoder_out, lengths, RowOptions.of(options)).hypotheses())


def test_the_contexts_that_k2_keeps() -> None:
    """k2 1.23.4's `RnntDecodingStreams` on `trivial_graph`, after each frame of the same networks."""
    for case in json.loads(gzip.decompress((DATA / "kept_contexts.json.gz").read_bytes())):
        network = ToyNetwork(case["vocab"], case["ctx"], case["seed"], case["peaky"])
        encoder_out, _ = frames([20, 13, 7], case["seed"], beyond=0.0)
        sizes = {name: case[name] for name in ("beam", "max_contexts", "max_states")}
        options = RowOptions.of([DecodingOptions("fast_beam_search", **sizes)])
        searches = Searches(network, slots=1, places=options.places, joiner_dim=JOINER_DIM)
        going_on = Continuation.beginning(1)
        for frame, kept in enumerate(case["kept"]):
            searches.advance(going_on, encoder_out[:1, frame : frame + 1], np.array([1]), options)
            going_on = replace(going_on, fresh=np.array([False]))
            alive = np.isfinite(searches._beams.scores[0, : options.places])
            found = searches._beams.contexts[0, : options.places][alive].tolist()
            assert sorted(found) == kept, f"{sizes}, frame {frame}"


def test_an_encoder_that_gives_nan() -> None:
    class Broken(ToyNetwork):
        def joiner(self, encoder_out, decoder_out):  # type: ignore[no-untyped-def]
            return super().joiner(encoder_out, decoder_out) * np.float32(np.nan)

    encoder_out, lens = frames([5])
    [found] = search(Broken(), encoder_out, lens, RowOptions.of(FAST[:1])).hypotheses()
    assert found.score == -np.inf
