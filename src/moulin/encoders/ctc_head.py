"""The CTC head that some recipes train beside the joiner: from encoder frames to log-probabilities of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from moulin.encoders.tensors import expect_shape, load_tensors

PREFIX = "ctc_output."


class CtcHead(nn.Module):
    """log_softmax(Linear(encoder frame)), on frames as the encoder gives them, before the joiner's `encoder_proj`."""

    def __init__(self, encoder_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.encoder_dim, self.vocab_size = encoder_dim, vocab_size
        # Icefall's module of this name is Sequential(Dropout, Linear, LogSoftmax) (zipformer/model.py).
        self.ctc_output = nn.Sequential(nn.Identity(), nn.Linear(encoder_dim, vocab_size), nn.LogSoftmax(dim=-1))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """A head with the sizes and values of a checkpoint's `tensors`. Raises ValueError where one is missing or has
        an impossible shape."""
        vocab_size, encoder_dim = expect_shape(tensors, f"{PREFIX}1.weight", (None, None))
        head = cls(encoder_dim, vocab_size)
        load_tensors(head, tensors)
        return head

    @property
    def logits(self) -> nn.Linear:
        """The layer before the softmax."""
        return self.ctc_output[1]  # type: ignore[return-value]

    def forward(self, encoder_out: Tensor) -> Tensor:
        """Encoder frames [N, T', encoder_dim] to log-probabilities [N, T', vocab_size]; blank is token 0."""
        return self.ctc_output(encoder_out)  # type: ignore[no-any-return]
