"""Smoothed models of text."""

from __future__ import annotations

import math

import numpy as np
import pytest

from moulin.errors import OptionsError
from moulin.language_models.kneser_ney import _USUAL_DISCOUNTS, _discounts, kneser_ney
from moulin.language_models.ngram_model import NgramModel

from .toy_text import toy_text


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("sentences", [1, 3, 300])
def test_probabilities_of_every_context_sum_to_1(order: int, sentences: int) -> None:
    model = NgramModel.of(kneser_ney(toy_text(sentences=sentences), order))
    words = np.array([number for number, word in enumerate(model.words) if word != "<s>"])
    for state in range(model.num_histories):
        log_probs, _ = model.step(np.full(len(words), state), words)
        assert np.exp(log_probs).sum() == pytest.approx(1, abs=2e-6)


def test_counts_by_hand() -> None:
    """`a b` and `a c`, bigrams, with the usual discounts (a text so small has no others): before <unk> and </s> there
    are 1 and 2 different words, and 4 words share what is left alike."""
    model = NgramModel.of(kneser_ney([["a", "b"], ["a", "c"]], 2))
    assert sorted(model.words) == ["</s>", "<s>", "<unk>", "a", "b", "c"]

    def of(*words: str) -> float:
        *before, last = [np.array([model.ids[word]]) for word in words]
        state = np.array([0])
        for word in before:
            _, state = model.step(state, word)
        return math.exp(model.step(state, last)[0][0])

    # Unigrams count different words before: a 1 (<s>), b 1, c 1, </s> 2; discounts 0.5 and 1.0 leave 2.5 of 5.
    left = 2.5 / 5
    assert of("a") == pytest.approx(0.5 / 5 + left / 5)
    assert of("</s>") == pytest.approx(1 / 5 + left / 5)
    assert of("<unk>") == pytest.approx(left / 5)
    # Behind a: b and c once each.
    assert of("a", "b") == pytest.approx(0.5 / 2 + 0.5 * of("b"))
    assert of("a", "a") == pytest.approx(0.5 * of("a"))
    assert of("<s>", "a") == pytest.approx(1 / 2 + 0.5 * of("a"))


def test_discounts() -> None:
    """Chen and Goodman's formulas for 10, 5, 3 and 2 n-grams that occur once to four times: Y = 0.5."""
    counts = np.array([1] * 10 + [2] * 5 + [3] * 3 + [4] * 2 + [9] * 4)
    assert _discounts(counts).tolist() == pytest.approx([0, 1 - 2 * 0.5 * 0.5, 2 - 3 * 0.5 * 0.6, 3 - 4 * 0.5 * 2 / 3])
    assert _discounts(counts[:10])[1:].tolist() == list(_USUAL_DISCOUNTS)


def test_no_text() -> None:
    with pytest.raises(OptionsError, match="Expected text to count n-grams in, got none"):
        kneser_ney([[], []], 3)
