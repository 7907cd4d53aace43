"""The stateless decoder (prediction network): a function of the last few tokens, without recurrence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from moulin.encoders.tensors import expect_shape, load_tensors


class Decoder(nn.Module):
    """An embedding, a grouped convolution over the tokens if there is more than one, and a ReLU
    (pruned_transducer_stateless*/decoder.py). The recipe `zipformer` has no ReLU for a context of one token
    (zipformer/decoder.py); `bigram_relu` is False for it."""

    def __init__(
        self, vocab_size: int, dim: int, context_size: int, groups: int = 1, *, bigram_relu: bool = True
    ) -> None:
        super().__init__()
        self.vocab_size, self.dim, self.context_size = vocab_size, dim, context_size
        self.relu = context_size > 1 or bigram_relu
        self.embedding = nn.Embedding(vocab_size, dim)
        self.conv = nn.Conv1d(dim, dim, context_size, groups=groups, bias=False) if context_size > 1 else None

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, bigram_relu: bool = True) -> Self:
        """A decoder with the sizes and values of `tensors`. Raises ValueError where one is missing or has an impossible
        shape."""
        vocab_size, dim = expect_shape(tensors, "embedding.weight", (None, None))
        context_size, groups = 1, 1
        if "conv.weight" in tensors:
            _, per_group, context_size = expect_shape(tensors, "conv.weight", (dim, None, None))
            if context_size < 2 or per_group < 1 or dim % per_group:
                raise ValueError(
                    f"expected the tensor 'conv.weight' to join 2 tokens or more in groups that divide {dim} channels, "
                    f"got {context_size} in groups of {per_group}"
                )
            groups = dim // per_group
        decoder = cls(vocab_size, dim, context_size, groups, bigram_relu=bigram_relu)
        load_tensors(decoder, tensors)
        return decoder

    def forward(self, y: Tensor) -> Tensor:
        """The last tokens int64 [N, context_size], -1 before the utterance's beginning, to [N, dim]."""
        said = (y >= 0).unsqueeze(-1)
        x = self.embedding(y.clamp(min=0)) * said
        x = self.conv(x.transpose(1, 2)).squeeze(-1) if self.conv is not None else x.squeeze(1)
        return torch.relu(x) if self.relu else x
