"""The joiner: from encoder and decoder output to scores of the next token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from moulin.encoders.tensors import expect_shape, load_tensors


class Joiner(nn.Module):
    """output_linear(tanh(encoder_proj(encoder) + decoder_proj(decoder))) (pruned_transducer_stateless*/joiner.py).

    The two projections are applied where their inputs are computed, once for each frame and once for each token;
    `forward` takes their outputs.
    """

    def __init__(self, encoder_dim: int, decoder_dim: int, joiner_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.joiner_dim, self.vocab_size = joiner_dim, vocab_size
        self.encoder_proj = nn.Linear(encoder_dim, joiner_dim)
        self.decoder_proj = nn.Linear(decoder_dim, joiner_dim)
        self.output_linear = nn.Linear(joiner_dim, vocab_size)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """A joiner with the sizes and values of `tensors`. Raises ValueError where one is missing or has an impossible
        shape."""
        joiner_dim, encoder_dim = expect_shape(tensors, "encoder_proj.weight", (None, None))
        _, decoder_dim = expect_shape(tensors, "decoder_proj.weight", (joiner_dim, None))
        vocab_size, _ = expect_shape(tensors, "output_linear.weight", (None, joiner_dim))
        joiner = cls(encoder_dim, decoder_dim, joiner_dim, vocab_size)
        load_tensors(joiner, tensors)
        return joiner

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        """Two projections [N, joiner_dim] to logits [N, vocab_size]."""
        return self.output_linear(torch.tanh(encoder_out + decoder_out))  # type: ignore[no-any-return]
