"""Searches with a language model against the reference, whose model has a dictionary and no states."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.bundle.tokens import TokenTable
from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.found import Found
from moulin.decoding.language_model import Fusion, TokenModel, WordModel, word_hash
from moulin.decoding.options import DecodingOptions
from moulin.decoding.reference import search_reference
from moulin.decoding.row_graphs import NO_GRAPHS
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Searches, search
from moulin.language_models.kneser_ney import kneser_ney
from moulin.language_models.ngram_model import NgramModel
from moulin.language_models.ngrams import Ngrams
from moulin.language_models.plain_ngrams import PlainNgrams

from .test_search import Streams, equal
from .toy_network import JOINER_DIM, ToyNetwork, frames

TOKENS = TokenTable(("<blk>", "▁A", "<unk>", "▁B", "▁", "A", "B", "AB", "▁BA", "C", "▁C"))
BEAM = DecodingOptions("modified_beam_search")


def token_ngrams(seed: int, order: int) -> Ngrams:
    chosen = random.Random(seed)
    some = [TOKENS.symbols[token] for token in (1, 3, 4, 5, 6, 7, 8)]
    return kneser_ney([chosen.choices(some, k=chosen.randint(1, 8)) for _ in range(40)], order)


def word_ngrams(seed: int) -> Ngrams:
    chosen = random.Random(seed)
    words = ("A", "B", "AA", "AB", "BA", "BAC", "ABBA")
    return kneser_ney([[chosen.choice(words) for _ in range(chosen.randint(1, 6))] for _ in range(40)], 3)


@dataclass(frozen=True)
class Plain:
    """The definition: texts, by a dictionary of n-grams."""

    words: Ngrams | None
    tokens: Ngrams | None
    lodr: Ngrams | None

    def score(self, tokens: Sequence[int], scale: float, lodr_scale: float, *, ended: bool) -> float:
        total = 0.0
        if self.words is not None:
            said = [word.word for word in TOKENS.words(tokens)]
            if not ended and said and TOKENS.symbols[tokens[-1]] != "▁":
                said.pop()
            total += scale * _of(self.words, said)
        if self.tokens is not None:
            total += scale * _of(self.tokens, [TOKENS.symbols[token] for token in tokens])
        if self.lodr is not None:
            total -= lodr_scale * _of(self.lodr, [TOKENS.symbols[token] for token in tokens])
        return total


def _of(ngrams: Ngrams, said: list[str]) -> float:
    unknown = ngrams.words.index("<unk>")
    known = {word: number for number, word in enumerate(ngrams.words)}
    return PlainNgrams(ngrams).score([known.get(word, unknown) for word in said])


def token_model(ngrams: Ngrams) -> TokenModel:
    model = NgramModel.of(ngrams)
    return TokenModel(model, np.array([model.ids.get(symbol, model.ids["<unk>"]) for symbol in TOKENS.symbols]))


def word_model(ngrams: Ngrams) -> WordModel:
    model = NgramModel.of(ngrams)
    of_tokens = [word_hash(data.removeprefix(b" ")) for data in TOKENS.token_bytes]
    of_words = np.array([word_hash(word.encode())[0] for word in model.words], np.uint64)
    order = np.argsort(of_words)
    return WordModel(
        model,
        model.ids["<unk>"],
        np.array([data[:1] == b" " for data in TOKENS.token_bytes]),
        np.array([found for found, _ in of_tokens], np.uint64),
        np.array([factor for _, factor in of_tokens], np.uint64),
        of_words[order],
        order,
    )


def both(kind: str, seed: int) -> tuple[Fusion, Plain]:
    match kind:
        case "tokens":
            ngrams = token_ngrams(seed, 3)
            return Fusion(token_model(ngrams)), Plain(None, ngrams, None)
        case "words":
            ngrams = word_ngrams(seed)
            return Fusion(word_model(ngrams)), Plain(ngrams, None, None)
    ngrams, lodr = word_ngrams(seed), token_ngrams(seed + 1, 2)
    return Fusion(word_model(ngrams), token_model(lodr)), Plain(ngrams, None, lodr)


OPTIONS = [
    DecodingOptions(),
    BEAM,
    DecodingOptions(lm_scale=0.5),
    DecodingOptions("modified_beam_search", beam=2, lm_scale=1.0),
    DecodingOptions("modified_beam_search", beam=8, lm_scale=0.25, nbest=2),
]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(OPTIONS), st.booleans(), st.integers(0, 16)), max_size=5),
    kind=st.sampled_from(["tokens", "words", "with lodr"]),
    peaky=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 20),
)
def test_each_row_has_its_own_weight(
    rows: list[tuple[DecodingOptions, bool, int]], kind: str, peaky: float, seed: int
) -> None:
    """Some with hotwords too."""
    fusion, plain = both(kind, seed)
    network = ToyNetwork(peaky=peaky, seed=seed)
    encoder_out, lens = frames([length for *_, length in rows], seed)
    graph = ContextGraph.of({(3, 5): 2.0})
    lodr_scale = 0.125 if fusion.lodr else None
    options = RowOptions.of(
        [replace(chosen, lodr_scale=lodr_scale) for chosen, *_ in rows],
        [(None, graph) if with_words else NO_GRAPHS for _, with_words, _ in rows],
    )
    found = search(network, encoder_out, lens, options, fusion=fusion).hypotheses()
    equal(found, search_reference(network, encoder_out, lens, options, language_model=plain).hypotheses())


@pytest.mark.parametrize("kind", ["tokens", "words", "with lodr"])
def test_scores_have_the_whole_texts_weighed_log_probability(kind: str) -> None:
    """A beam of all hypotheses: each one's score is that without a language model, plus an independent count."""
    fusion, plain = both(kind, 3)
    network = ToyNetwork(seed=3, vocab_size=11)
    network.bias[[2, 4, 6, 7, 8, 9, 10]] = -40.0  # leaves blank, ▁A, ▁B, A
    encoder_out, lens = frames([2], 3)
    lodr_scale = 0.25 if fusion.lodr else None
    weighed = DecodingOptions("modified_beam_search", beam=32, nbest=10, lm_scale=0.75, lodr_scale=lodr_scale)
    found = []
    for chosen in (weighed, replace(weighed, lm_scale=None, lodr_scale=None)):
        rows = RowOptions.of([chosen])
        [best] = search(network, encoder_out, lens, rows, fusion=fusion).hypotheses(rows.wants_others)
        found.append({one.tokens: one.score for one in (best, *best.others)})
    common = [tokens for tokens in found[0] if set(tokens) <= {1, 3, 5}]
    assert len(common) == 13
    for tokens in common:
        count = plain.score(tokens, 0.75, lodr_scale or 0.0, ended=True)
        assert found[0][tokens] - found[1][tokens] == pytest.approx(count, abs=1e-4)


def test_a_weight_of_0_changes_nothing() -> None:
    """To the bit, also beside a row with a weight."""
    fusion, _ = both("with lodr", 1)
    network, (encoder_out, lens) = ToyNetwork(peaky=1.0), frames([20, 20])
    none = replace(BEAM, lm_scale=0.0, lodr_scale=1.0)
    plain = search(network, encoder_out, lens, RowOptions.of([BEAM] * 2))
    for beside in (none, replace(BEAM, lm_scale=1.0)):
        found = search(network, encoder_out, lens, RowOptions.of([none, beside]), fusion=fusion)
        for field in fields(Found):
            np.testing.assert_array_equal(getattr(found, field.name)[0], getattr(plain, field.name)[0])


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["tokens", "words", "with lodr"]),
    pieces=st.lists(st.lists(st.integers(0, 7), min_size=3, max_size=3), min_size=1, max_size=5),
    seed=st.integers(0, 20),
)
def test_any_pieces_equal_the_whole(kind: str, pieces: list[list[int]], seed: int) -> None:
    fusion, _ = both(kind, seed)
    network = ToyNetwork(peaky=1.0, seed=seed)
    lengths = np.array([sum(column) for column in zip(*pieces, strict=True)])
    encoder_out, _ = frames(lengths.tolist(), seed)
    options = [BEAM, replace(BEAM, lm_scale=0.5), replace(BEAM, lm_scale=1.0, beam=8)]
    in_pieces = Streams(network, options, fusion=fusion)
    done = np.zeros(3, dtype=np.int64)
    for piece in pieces:
        chunk = np.zeros((3, max(piece), JOINER_DIM), dtype=np.float32)
        for row, count in enumerate(piece):
            chunk[row, :count] = encoder_out[row, done[row] : done[row] + count]
        in_pieces.advance(np.arange(3), chunk, np.array(piece))
        done += piece
    whole = search(network, encoder_out, lengths, RowOptions.of(options), fusion=fusion)
    equal(in_pieces.hypotheses, whole.hypotheses())


def test_a_history_goes_on_behind_a_closed_segment_and_a_new_search_has_none() -> None:
    """A pause ends a word; a word that goes on into the next segment stays open."""
    fusion, _ = both("words", 2)
    network = ToyNetwork()
    options = RowOptions.of([replace(BEAM, lm_scale=0.5)])
    searches = Searches(network, slots=1, places=4, joiner_dim=JOINER_DIM, fusion=fusion)
    beams = searches._beams
    begun = np.array([fusion.start])
    _, within = fusion.model.advance(begun, np.array([1]))
    _, behind = fusion.model.advance(fusion.model.closed(within), np.array([3]))
    assert behind[0, 0] != within[0, 0] == begun[0, 0]
    rows, place = np.array([0]), np.array([2], np.int32)
    for kept, wanted in ((0, fusion.closed(within)), (1, within)):
        beams.lm_states[0, 2] = within
        beams.decide(rows, place, np.array([kept], np.int32), fusion)
        assert beams.lm_states[0, 0].tolist() == wanted[0].tolist()
    beams.begin(rows, network, fusion)
    assert beams.lm_states[0, 0].tolist() == fusion.start.tolist()
    assert options.beams.tolist() == [4]


def test_where_the_network_fails_the_states_stay() -> None:
    class Failing(ToyNetwork):
        fails = False

        def joiner(self, encoder_out, decoder_out):  # type: ignore[no-untyped-def]
            if self.fails:
                raise RuntimeError("no network")
            return super().joiner(encoder_out, decoder_out)

    fusion, _ = both("words", 0)
    network, (encoder_out, _) = Failing(peaky=1.0), frames([16])
    one, other = (Streams(network, [replace(BEAM, lm_scale=1.0)], fusion=fusion) for _ in range(2))
    for streams in (one, other):
        streams.advance(np.array([0]), encoder_out[:, :8], np.array([8]))
    network.fails = True
    with pytest.raises(RuntimeError):
        one.advance(np.array([0]), encoder_out[:, 8:], np.array([8]))
    network.fails = False
    for streams in (one, other):
        streams.advance(np.array([0]), encoder_out[:, 8:], np.array([8]))
    equal(one.hypotheses, other.hypotheses)
