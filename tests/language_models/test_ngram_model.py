"""Arrays of n-grams against the definition, and against KenLM."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.errors import BundleError
from moulin.language_models.arpa import read_arpa
from moulin.language_models.kneser_ney import kneser_ney
from moulin.language_models.ngram_model import NgramModel
from moulin.language_models.ngrams import Level, Ngrams
from moulin.language_models.plain_ngrams import PlainNgrams

from .toy_text import toy_text

DATA = Path(__file__).parent.parent / "data" / "ngrams"


def scores(model: NgramModel, texts: list[list[int]]) -> list[float]:
    """All texts together, word by word."""
    states, totals = np.full(len(texts), model.start), np.zeros(len(texts))
    for at in range(max(map(len, texts), default=0)):
        going = np.array([row for row, text in enumerate(texts) if at < len(text)])
        log_probs, states[going] = model.step(states[going], np.array([texts[row][at] for row in going]))
        totals[going] += log_probs
    return [float(total) for total in totals]


def pruned(ngrams: Ngrams, seed: int) -> Ngrams:
    """Without some n-grams that begin no other, so that ends of others are missing."""
    chosen, levels, begins = random.Random(seed), list(ngrams.levels), set[tuple[int, ...]]()
    for order in range(len(levels) - 1, 0, -1):
        level = levels[order]
        kept = [tuple(row) in begins or chosen.random() < 0.5 for row in level.words.tolist()]
        levels[order] = Level(level.words[kept], level.log_probs[kept], level.backoffs[kept])
        begins = {tuple(row[:-1]) for row in levels[order].words.tolist()}
    return Ngrams(ngrams.words, levels)


@settings(max_examples=25, deadline=None)
@given(order=st.integers(1, 4), prune=st.booleans(), begin=st.booleans(), seed=st.integers(0, 99))
def test_arrays_equal_the_definition(order: int, prune: bool, begin: bool, seed: int) -> None:
    ngrams = kneser_ney(toy_text(seed, 40), order)
    ngrams = pruned(ngrams, seed) if prune else ngrams
    if not begin:
        ngrams = Ngrams(["<t>", *ngrams.words[1:]], ngrams.levels)
    model, plain, chosen = NgramModel.of(ngrams), PlainNgrams(ngrams), random.Random(seed)
    texts = [[chosen.randrange(1, len(ngrams.words)) for _ in range(chosen.randint(0, 9))] for _ in range(30)]
    assert scores(model, texts) == pytest.approx([plain.score(text) for text in texts], abs=1e-4)


def test_as_kenlm_scores() -> None:
    """`scores.json` is by kenlm 0.3.0: `Model(FILE).score(text, bos=True, eos=False)`, decimal logarithms."""
    model = NgramModel.of(read_arpa(DATA / "words.arpa.gz"))
    said = json.loads((DATA / "scores.json").read_text())
    unknown = model.ids["<unk>"]
    texts = [[model.ids.get(word, unknown) for word in text.split()] for text in said]
    assert any(unknown in text for text in texts)
    found = scores(model, texts)
    assert len(found) == 200
    assert found == pytest.approx([math.log(10) * score for score in said.values()], abs=1e-4)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([[1, 2], [1, 2]], "Expected each 2-gram once, got 'A B' twice"),
        ([[2, 1], [1, 2]], "Expected the beginning 'C A' of the 3-gram 'C A B' among the 2-grams"),
    ],
)
def test_what_is_no_model(rows: list[list[int]], match: str) -> None:
    def level(words: list[list[int]]) -> Level:
        return Level(np.array(words, np.int32), np.full(len(words), -1, np.float32), np.zeros(len(words), np.float32))

    ngrams = Ngrams(["<s>", "A", "B", "C"], [level([[0], [1], [2], [3]]), level(rows), level([[3, 1, 2]])])
    with pytest.raises(BundleError, match=match):
        NgramModel.of(ngrams)
