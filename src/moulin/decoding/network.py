"""The seam between searches and models: the networks that a search calls."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from moulin.arrays import Bools, Floats, Ints


class PredictionNetwork(Protocol):
    """The decoder (predictor) and joiner of a transducer, batched over rows."""

    @property
    def context_size(self) -> int:
        """The number of last tokens that the stateless decoder sees."""

    @property
    def skipped_ids(self) -> tuple[int, ...]:
        """Tokens that are never emitted: blank (0), and `<unk>` where the vocabulary has one."""

    def decoder(self, y: Ints) -> Floats:
        """int64 [N, context_size] to float32 [N, joiner_dim]; -1 stands for "before the beginning"."""

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        """Two float32 [N, joiner_dim] to logits, float32 [N, vocab_size]."""


def initial_context(context_size: int) -> list[int]:
    """The decoder's context before the first token, as in Icefall's `greedy_search_batch` and in sherpa-onnx."""
    return [-1] * (context_size - 1) + [0]


def is_emitted(tokens: Ints, skipped_ids: tuple[int, ...]) -> Bools:
    """Which of `tokens`, of any shape, are none of `skipped_ids`; a tenth of the time of `np.isin`."""
    emitted = np.ones(tokens.shape, dtype=np.bool_)
    for skipped in skipped_ids:
        emitted &= tokens != skipped
    return emitted


def log_softmax(logits: Floats, blank_penalties: Floats, sharpness: Floats) -> Floats:
    """Log-probabilities of `logits` [N, vocab_size], `scaled`: float32 of the same shape."""
    logits = scaled(logits, blank_penalties, sharpness)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probs


def scaled(logits: Floats, blank_penalties: Floats, sharpness: Floats) -> Floats:
    """`logits` [N, vocab_size], in row i `blank_penalties[i]` less for blank, and then multiplied by `sharpness[i]`,
    which is 1 / temperature. Both may have a single item, for all rows."""
    if blank_penalties.any():
        logits = logits.copy()
        logits[:, 0] -= blank_penalties
    if (sharpness != 1).any():
        logits = logits * sharpness[:, None]
    return logits
