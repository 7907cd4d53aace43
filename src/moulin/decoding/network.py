"""What a search needs of a model, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.decoding.options import DecodingOptions


class PredictionNetwork(Protocol):
    """The decoder (predictor) and joiner of a transducer, batched over rows."""

    @property
    def context_size(self) -> int:
        """How many of the last tokens the stateless decoder sees."""

    @property
    def skipped_ids(self) -> tuple[int, ...]:
        """Tokens that are never emitted: blank (0), and `<unk>` where the vocabulary has one."""

    def decoder(self, y: Ints) -> Floats:
        """int64 [N, context_size] to float32 [N, joiner_dim]; -1 stands for "before the beginning"."""

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        """Two float32 [N, joiner_dim] to logits, float32 [N, vocab_size]."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The tokens found in one utterance.

    `frames[i]` is the encoder frame at which `tokens[i]` was emitted and `log_probs[i]` its log-probability there.
    `score` is the total log-probability of the path or, in beam search, of all merged paths.
    """

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    log_probs: tuple[float, ...]
    score: float


def initial_context(context_size: int) -> list[int]:
    """What the decoder sees before the first token, as in Icefall's `greedy_search_batch` and in sherpa-onnx."""
    return [-1] * (context_size - 1) + [0]


def log_softmax(logits: Floats, options: DecodingOptions) -> Floats:
    """Log-probabilities over the last axis after blank penalty and temperature, float32 of the same shape."""
    if options.blank_penalty:
        logits = logits.copy()
        logits[..., 0] -= options.blank_penalty
    if options.temperature != 1.0:
        logits = logits / np.float32(options.temperature)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probs
