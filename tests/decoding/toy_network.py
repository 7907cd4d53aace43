"""A small prediction network in numpy whose every row is computed alike, whatever the batch: searches that call it
in different ways must have equal results, not merely close ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints

JOINER_DIM = 6


@dataclass
class ToyNetwork:
    """Random weights. `peaky` ones prefer blank by that many nats, so that tokens are rare, as in real speech;
    `levels` rounds logits to so many steps a nat, so that ties abound."""

    vocab_size: int = 11
    context_size: int = 2
    seed: int = 0
    peaky: float = 0.0
    levels: int | None = None
    skipped_ids: tuple[int, ...] = (0, 2)
    contexts: list[NDArray[np.int64]] = field(default_factory=list)
    """Every `y` of the decoder's calls."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.embedding = rng.standard_normal((self.context_size, self.vocab_size + 1, JOINER_DIM)).astype(np.float32)
        self.output = 1.5 * rng.standard_normal((self.vocab_size, JOINER_DIM)).astype(np.float32)
        self.bias = rng.standard_normal(self.vocab_size).astype(np.float32)
        self.bias[0] += self.peaky

    def decoder(self, y: Ints) -> Floats:
        assert y.dtype == np.int64
        assert y.shape[1:] == (self.context_size,)
        assert len(y), "a call for nothing"
        assert (y >= -1).all()
        assert (y < self.vocab_size).all()
        self.contexts.append(y.copy())
        rows = [self.embedding[place][y[:, place]] for place in range(self.context_size)]  # -1: the last row
        decoder_out: Floats = np.sum(rows, axis=0, dtype=np.float32)
        return decoder_out

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        assert encoder_out.dtype == decoder_out.dtype == np.float32
        assert encoder_out.shape == decoder_out.shape == (len(encoder_out), JOINER_DIM)
        assert np.isfinite(encoder_out).all(), "a frame beyond the utterance was looked at"
        hidden = np.tanh(encoder_out + decoder_out)
        logits: Floats = (hidden[:, None, :] * self.output).sum(axis=-1) + self.bias
        if self.levels:
            logits = np.round(logits * self.levels) / np.float32(self.levels)
        return logits


def frames(lengths: list[int], seed: int = 0, *, beyond: float = np.nan) -> tuple[Floats, Ints]:
    """Random encoder_out for utterances of these lengths, with encoder_out_lens; frames behind them are `beyond`."""
    rng = np.random.default_rng(seed)
    encoder_out = np.full((len(lengths), max(lengths, default=0), JOINER_DIM), beyond, np.float32)
    for row, length in zip(encoder_out, lengths, strict=True):
        row[:length] = rng.standard_normal((length, JOINER_DIM))
    return encoder_out, np.array(lengths, dtype=np.int64)
