"""Rescoring: the hypotheses of a finished search gain `lm_scale` times a language model's log-probability.

The search itself is that without a language model; the texts in its beam are weighed against each other when it has
ended, with the end of the text (`</s>`), as in sherpa-onnx's offline recogniser (`lm`) and Icefall's
`modified_beam_search_lm_rescore`. It is for models that score whole texts only; others are fused into the search
(`moulin.decoding.language_model`). LODR is subtracted likewise, at the end and with the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moulin.arrays import Doubles, Floats, Ints
from moulin.decoding.found import Found
from moulin.decoding.language_model import Fusion, TokenModel

_END = "</s>"


class TextModel(Protocol):
    """A language model over a transducer's tokens that scores whole texts."""

    def log_probs(self, tokens: Ints, lengths: Ints) -> Doubles:
        """The log-probabilities, float64 [M], of texts of the first `lengths` [M] of `tokens` [M, L], and their
        ends."""


@dataclass(frozen=True)
class Rescoring:
    """A server's language model of whole texts, and the low-order one that is subtracted, if any."""

    model: TextModel
    lodr: TokenModel | None = None

    def gains(self, found: Found, scales: Floats, lodr_scales: Floats) -> Doubles:
        """The gains [N, P] of all hypotheses in `found`, which has whole utterances; `scales` and `lodr_scales` [N] are
        those of each row, where 0 is without."""
        gains = np.zeros(found.scores.shape)
        where = np.isfinite(found.scores) & (scales > 0)[:, None]
        rows, _ = np.nonzero(where)
        if not len(rows):
            return gains
        lengths = found.counts[where].astype(np.int64)
        tokens = found.tokens[where][:, : lengths.max()].astype(np.int64)
        tokens[np.arange(tokens.shape[1]) >= lengths[:, None]] = 0
        gains[where] = self.model.log_probs(tokens, lengths) * scales[rows]
        if self.lodr is not None:
            gains[where] -= _of_ngrams(self.lodr, tokens, lengths) * lodr_scales[rows]
        return gains


def _of_ngrams(model: TokenModel, tokens: Ints, lengths: Ints) -> Doubles:
    """`TextModel.log_probs` by n-grams."""
    total, states = np.zeros(len(tokens)), np.repeat(model.start[None], len(tokens), axis=0)
    for at in range(tokens.shape[1]):
        on = np.flatnonzero(lengths > at)
        log_probs, states[on] = model.advance(states[on], tokens[on, at])
        total[on] += log_probs
    if _END in model.ngrams.ids:
        total += model.ngrams.step(states[:, 0], np.full(len(tokens), model.ngrams.ids[_END]))[0]
    return total


LanguageModelUse = Fusion | Rescoring
"""Of a server: one of the two."""
