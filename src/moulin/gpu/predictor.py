"""The decoder and joiner as the searches on the GPU use them.

A stateless decoder sees few tokens, and mostly has so few contexts that its outputs, projected for the joiner, fit into
a table. For a vocabulary or a context too large for that, each token's contribution is tabulated instead, by its place
in the context, and a kernel adds them and applies the ReLU and the projection. A decoder without a ReLU is then
computed as one with twice as many channels: x is relu(x) - relu(-x).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import triton
from torch import Tensor
from torch.nn import functional

from moulin.encoders.decoder import Decoder
from moulin.encoders.joiner import Joiner
from moulin.gpu.families import contexts_fit
from moulin.gpu.shared_parameters import digest, held_once

MAX_TABLE_BYTES = 2 << 30

MAX_BLOCK_V = 512
"""Tokens whose logits a program has in registers at once."""

_ROWS = 1 << 14
"""Rows of the table that are computed at once."""


class PredictorTensors(NamedTuple):
    """Decoder and joiner as a kernel takes them.

    C is the number of tokens and "before the beginning", N the tokens that the decoder sees. J is the joiner's width
    and D the decoder's hidden width, each padded to a power of two, V the vocabulary (`padded_vocab`).
    """

    table: Tensor
    """The decoder's outputs for all contexts, [C^N, J]; a single row of zeros where it would be too large."""
    contributions: Tensor | None
    """Without a table, what each token adds before the ReLU, [N C, D]: C rows for the newest token, then C for the one
    before it, and so on; else None, as the next two are."""
    projection: Tensor | None
    """[D, J]"""
    projection_bias: Tensor | None
    """float32 [J]"""
    weight: Tensor
    """The joiner's output layer, transposed: [J, V]."""
    bias: Tensor
    """float32 [V]; -inf in the padding."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Predictor:
    """A context is two numbers (a, b), `moulin.gpu.kernels.contexts`."""

    tensors: PredictorTensors
    vocab_size: int
    joiner_dim: int
    context_size: int
    unk_id: int
    """The token that is not emitted beside blank, -1 where there is none."""

    @property
    def weight(self) -> Tensor:
        """See `PredictorTensors`."""
        return self.tensors.weight

    @property
    def depth(self) -> int:
        """D, or 1 with a table."""
        return 1 if self.tensors.contributions is None else self.tensors.contributions.shape[1]

    @property
    def histories(self) -> int:
        """C^(N - 1), the values that `a` of a context may have."""
        return int((self.vocab_size + 1) ** (self.context_size - 1))

    @property
    def context_dtype(self) -> torch.dtype:
        """The type that holds the number of any context."""
        return torch.int32 if self.histories * (self.vocab_size + 1) < 1 << 31 else torch.int64

    def scratch(self, rows: int) -> Tensor | None:
        """[rows, J] for the decoder's outputs that a kernel computes; None where the table has them all."""
        table = self.tensors.table
        return None if self.tensors.contributions is None else table.new_empty(rows, table.shape[1])

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        joiner: Joiner,
        *,
        device: torch.device,
        dtype: torch.dtype,
        unk_id: int = -1,
        max_table_bytes: int = MAX_TABLE_BYTES,
    ) -> Self:
        """One predictor for all that have the same parameters (`shared_parameters`). Raises ValueError for a decoder
        with more contexts than 64 bits can number."""
        parameters = [*decoder.parameters(), *joiner.decoder_proj.parameters(), *joiner.output_linear.parameters()]
        sizes = [(parameter.shape, digest(parameter.detach())) for parameter in parameters]
        key = "predictor", device, dtype, unk_id, max_table_bytes, decoder.relu, decoder.context_size, *sizes
        return held_once(
            key, lambda: cls._of(decoder, joiner, device, dtype, unk_id=unk_id, max_table_bytes=max_table_bytes)
        )

    @classmethod
    def _of(
        cls,
        decoder: Decoder,
        joiner: Joiner,
        device: torch.device,
        dtype: torch.dtype,
        *,
        unk_id: int,
        max_table_bytes: int,
    ) -> Self:
        vocab_size, joiner_dim, context_size = joiner.vocab_size, joiner.joiner_dim, decoder.context_size
        if not contexts_fit(vocab_size, context_size):
            raise ValueError(
                "expected a decoder whose contexts 64 bits can number, got one that sees "
                f"{context_size} of {vocab_size} tokens"
            )
        contributions = _contributions(decoder).to(device)
        projection = joiner.decoder_proj.weight.detach().float().t().contiguous().to(device)
        projection_bias = joiner.decoder_proj.bias.detach().float().to(device)
        width, contexts = triton.next_power_of_2(max(joiner_dim, 16)), (vocab_size + 1) ** context_size
        tabulated = contexts * width * dtype.itemsize <= max_table_bytes
        table = torch.zeros(contexts if tabulated else 1, width, dtype=dtype, device=device)
        hidden: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)
        if tabulated:
            for first in range(0, contexts, _ROWS):
                numbers = torch.arange(first, min(first + _ROWS, contexts), device=device)
                digits = [numbers // (vocab_size + 1) ** place % (vocab_size + 1) for place in range(context_size)]
                summed = torch.stack([part[digit] for part, digit in zip(contributions, digits, strict=True)]).sum(0)
                rows = (torch.relu(summed) if decoder.relu else summed) @ projection + projection_bias
                table[numbers, :joiner_dim] = rows.to(dtype)
        else:
            if not decoder.relu:
                contributions = torch.cat((contributions, -contributions), dim=2)
                projection = torch.cat((projection, -projection))
            deep = triton.next_power_of_2(max(len(projection), 16)) - len(projection)
            hidden = (
                functional.pad(contributions.flatten(0, 1), (0, deep)).to(dtype),
                functional.pad(projection, (0, width - joiner_dim, 0, deep)).to(dtype),
                functional.pad(projection_bias, (0, width - joiner_dim)),
            )
        missing = padded_vocab(vocab_size) - vocab_size
        output = joiner.output_linear
        weight = functional.pad(output.weight.detach().float().t(), (0, missing, 0, width - joiner_dim))
        bias = functional.pad(output.bias.detach().float(), (0, missing), value=float("-inf"))
        output_layer = weight.contiguous().to(device, dtype)
        tensors = PredictorTensors(table, *hidden, weight=output_layer, bias=bias.to(device))
        return cls(tensors, vocab_size, joiner_dim, context_size, unk_id)


def padded_vocab(vocab_size: int) -> int:
    """The columns of the output layer: a power of two, or beyond MAX_BLOCK_V whole blocks of it."""
    block = min(MAX_BLOCK_V, triton.next_power_of_2(max(vocab_size, 16)))
    return int(-(-vocab_size // block) * block)


def _contributions(decoder: Decoder) -> Tensor:
    """The contribution of each token to the decoder's output before its ReLU, [N, C, D]: the newest token's first, and
    of each place's C rows the first, "before the beginning", is zeros."""
    embedding = functional.pad(decoder.embedding.weight.detach().float(), (0, 0, 1, 0))
    if decoder.conv is None:
        return embedding[None]
    context = torch.zeros(*embedding.shape, decoder.context_size)
    parts = []
    for place in reversed(range(decoder.context_size)):
        context.zero_()[:, :, place] = embedding
        with torch.no_grad():
            parts.append(decoder.conv(context).squeeze(2))
    return torch.stack(parts)
