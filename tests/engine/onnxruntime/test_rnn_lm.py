"""RNN language models in ONNX against PyTorch, which counts a whole text at once."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moulin.bundle.rnn_lm import read_rnn_lm
from moulin.decoding.language_model import Fusion
from moulin.decoding.options import DecodingOptions
from moulin.decoding.rescoring import LanguageModelUse, Rescoring
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search
from moulin.engine.onnxruntime.rnn_lm import OnnxRnnLm, OnnxTextScorer
from moulin.errors import BundleError
from tests.decoding.test_search import Streams, equal
from tests.decoding.toy_network import ToyNetwork, frames
from tests.rnn_lm import SOS, RnnLm, export_of_texts, export_with_states, trained

VOCAB = 11


@pytest.fixture(scope="module")
def model() -> RnnLm:
    chosen = random.Random(1)
    return trained([chosen.choices(range(3, VOCAB), k=6) for _ in range(20)], VOCAB, steps=10)


@pytest.fixture(scope="module")
def with_states(model: RnnLm, tmp_path_factory: pytest.TempPathFactory) -> OnnxRnnLm:
    return OnnxRnnLm(read_rnn_lm(export_with_states(model, tmp_path_factory.mktemp("lm") / "lm.onnx")))


@pytest.fixture(scope="module")
def of_texts(model: RnnLm, tmp_path_factory: pytest.TempPathFactory) -> OnnxTextScorer:
    return OnnxTextScorer(read_rnn_lm(export_of_texts(model, tmp_path_factory.mktemp("lm") / "lm.onnx")))


TEXTS = [[5, 3, 3, 9], [], [10], [4, 5, 6, 7, 8, 9, 10]]


def test_states_go_on_token_by_token(model: RnnLm, with_states: OnnxRnnLm) -> None:
    """All texts at once, of different lengths."""
    states, total = np.repeat(with_states.start[None], len(TEXTS), axis=0), np.zeros(len(TEXTS))
    for at in range(max(map(len, TEXTS))):
        on = np.array([number for number, text in enumerate(TEXTS) if len(text) > at])
        gains, states[on] = with_states.advance(
            with_states.ahead(states[on]), np.array([TEXTS[number][at] for number in on])
        )
        total[on] += gains
    assert with_states.ahead(with_states.ahead(states)).tolist() == with_states.ahead(states).tolist()
    np.testing.assert_allclose(total, [model.score(text, ended=False) for text in TEXTS], atol=1e-4)
    assert with_states.advance(states[:0], np.array([], np.int64))[0].shape == (0,)


def test_whole_texts(model: RnnLm, of_texts: OnnxTextScorer) -> None:
    """With their ends; padding adds nothing."""
    padded = np.array([[*text, *[0] * (8 - len(text))] for text in TEXTS])
    found = of_texts.log_probs(padded, np.array([len(text) for text in TEXTS]))
    np.testing.assert_allclose(found, [model.score(text, ended=True) for text in TEXTS], atol=1e-4)
    np.testing.assert_allclose(of_texts.log_probs(np.zeros((1, 0), np.int64), np.array([0])), found[1], atol=1e-4)


@pytest.mark.parametrize("ended", [False, True], ids=["fused", "rescored"])
def test_scores_have_the_texts_weighed_log_probability(
    ended: bool, model: RnnLm, with_states: OnnxRnnLm, of_texts: OnnxTextScorer
) -> None:
    """A beam of all hypotheses, in rows of different weights: each text's score is that without a language model, plus
    PyTorch's count; with weight 0 it is the same to the bit."""
    network = ToyNetwork(seed=3, vocab_size=VOCAB)
    network.bias[[2, 4, 6, 7, 8, 9, 10]] = -40.0  # leaves blank, 1, 3, 5
    encoder_out, lens = frames([2, 2, 2], 3)
    encoder_out[1:] = encoder_out[0]
    usual = DecodingOptions("modified_beam_search", beam=32, nbest=10)
    rows = RowOptions.of([usual, replace(usual, lm_scale=0.75), replace(usual, lm_scale=0.25)])
    use: LanguageModelUse = Rescoring(of_texts) if ended else Fusion(with_states)
    found = search(network, encoder_out, lens, rows, fusion=use).hypotheses(rows.wants_others)
    plain, *weighed = [{one.tokens: one.score for one in (best, *best.others)} for best in found]
    for scale, scores in zip((0.75, 0.25), weighed, strict=True):
        common = [tokens for tokens in scores if tokens in plain and set(tokens) <= {1, 3, 5}]
        assert len(common) == 13
        for tokens in common:
            count = scale * model.score(tokens, ended=ended)
            assert scores[tokens] - plain[tokens] == pytest.approx(count, abs=1e-4)
    alone = search(network, encoder_out[:1], lens[:1], RowOptions.of([usual]))
    assert search(network, encoder_out, lens, rows, fusion=use).scores[0].tolist() == alone.scores[0].tolist()


def test_any_pieces_equal_the_whole(with_states: OnnxRnnLm) -> None:
    network, fusion = ToyNetwork(peaky=1.0, seed=2), Fusion(with_states)
    encoder_out, lens = frames([20, 20], 2)
    options = [DecodingOptions("modified_beam_search", lm_scale=scale) for scale in (0.5, 1.0)]
    in_pieces = Streams(network, options, fusion=fusion)
    for begin in range(0, 20, 5):
        in_pieces.advance(np.arange(2), encoder_out[:, begin : begin + 5], np.array([5, 5]))
    equal(in_pieces.hypotheses, search(network, encoder_out, lens, RowOptions.of(options), fusion=fusion).hypotheses())


def test_what_is_no_log_probability(model: RnnLm, tmp_path: Path) -> None:
    """A network with weights of NaN, and one without a softmax."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.output_linear.bias, "data", model.output_linear.bias.data * float("nan"))
        for export, kind in ((export_with_states, OnnxRnnLm), (export_of_texts, OnnxTextScorer)):
            with pytest.raises(BundleError, match=r"Expected (a negative )?log-"):
                kind(read_rnn_lm(export(model, tmp_path / "nan.onnx")))


def test_the_first_token_is_the_files(with_states: OnnxRnnLm) -> None:
    assert with_states.start[-1] == SOS
    assert not with_states.start[:-1].any()
