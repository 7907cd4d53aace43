"""The decoder and joiner as the searches on the GPU use them.

A stateless decoder that sees one or two tokens has so few contexts that its outputs, projected for the joiner, mostly
fit into a table. For a vocabulary too large for that, each token's contribution is tabulated instead, and a kernel adds
two of them and applies the ReLU and the projection. A decoder without a ReLU is then computed as one with twice as many
channels: x is relu(x) - relu(-x).
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
from moulin.gpu.families import MAX_CONTEXT_SIZE

MAX_TABLE_BYTES = 2 << 30


class PredictorTensors(NamedTuple):
    """Decoder and joiner as a kernel takes them.

    J is the joiner's width, V the vocabulary, D the decoder's hidden width, each padded to a power of two.
    """

    table: Tensor
    """The decoder's outputs for all contexts, [(V + 1)^2, J]; a single row of zeros where it would be too large."""
    earlier: Tensor | None
    """Without a table, what each token adds as the earlier of two before the ReLU, [V + 1, D]; else None, as the next
    three are."""
    later: Tensor | None
    """Without a table, what each token adds as the later of two, [V + 1, D]."""
    projection: Tensor | None
    """[D, J]"""
    projection_bias: Tensor | None
    """float32 [J]"""
    weight: Tensor
    """The joiner's output layer, transposed: [J, V]."""
    bias: Tensor
    """float32 [V]; -inf in the padding."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """Contexts are two tokens (a, b), the earlier first, counted from 0 for "before the beginning": a + 1 and b + 1.
    A decoder that sees one token has a in its contexts all the same, and the same output for every a.
    """

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
        return 1 if self.tensors.earlier is None else self.tensors.earlier.shape[1]

    def scratch(self, rows: int) -> Tensor | None:
        """[rows, J] for the decoder's outputs that a kernel computes; None where the table has them all."""
        table = self.tensors.table
        return None if self.tensors.earlier is None else table.new_empty(rows, table.shape[1])

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
        """Raises ValueError for a decoder that sees more than two tokens."""
        if decoder.context_size > MAX_CONTEXT_SIZE:
            raise ValueError(f"expected a decoder that sees 1 or 2 tokens, got one that sees {decoder.context_size}")
        vocab_size, joiner_dim = joiner.vocab_size, joiner.joiner_dim
        earlier, later = (part.to(device) for part in _contributions(decoder))
        projection = joiner.decoder_proj.weight.detach().float().t().contiguous().to(device)
        projection_bias = joiner.decoder_proj.bias.detach().float().to(device)
        width = triton.next_power_of_2(max(joiner_dim, 16))
        tabulated = (vocab_size + 1) ** 2 * width * dtype.itemsize <= max_table_bytes
        if tabulated:
            table = torch.zeros((vocab_size + 1) ** 2, width, dtype=dtype, device=device)
            by_context = table.view(vocab_size + 1, vocab_size + 1, width)
            for a in range(vocab_size + 1):
                summed = earlier[a] + later
                rows = (torch.relu(summed) if decoder.relu else summed) @ projection + projection_bias
                by_context[a, :, :joiner_dim] = rows.to(dtype)
            hidden: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None] = (None, None, None, None)
        else:
            table = torch.zeros(1, width, dtype=dtype, device=device)
            if not decoder.relu:
                earlier, later = (torch.cat((part, -part), dim=1) for part in (earlier, later))
                projection = torch.cat((projection, -projection))
            deep = triton.next_power_of_2(max(len(projection), 16)) - len(projection)
            hidden = (
                functional.pad(earlier, (0, deep)).to(dtype),
                functional.pad(later, (0, deep)).to(dtype),
                functional.pad(projection, (0, width - joiner_dim, 0, deep)).to(dtype),
                functional.pad(projection_bias, (0, width - joiner_dim)),
            )
        missing = triton.next_power_of_2(max(vocab_size, 16)) - vocab_size
        output = joiner.output_linear
        weight = functional.pad(output.weight.detach().float().t(), (0, missing, 0, width - joiner_dim))
        bias = functional.pad(output.bias.detach().float(), (0, missing), value=float("-inf"))
        output_layer = weight.contiguous().to(device, dtype)
        tensors = PredictorTensors(table, *hidden, weight=output_layer, bias=bias.to(device))
        return cls(tensors, vocab_size, joiner_dim, decoder.context_size, unk_id)


def _contributions(decoder: Decoder) -> tuple[Tensor, Tensor]:
    """The contribution of each token to the decoder's output before its ReLU, as the earlier and as the later of two
    tokens: two [V + 1, D], of which the first row is zeros."""
    embedding = functional.pad(decoder.embedding.weight.detach().float(), (0, 0, 1, 0))
    nothing = torch.zeros_like(embedding)
    if decoder.conv is None:
        return nothing, embedding

    def convolved(*tokens: Tensor) -> Tensor:
        assert decoder.conv is not None
        with torch.no_grad():
            return decoder.conv(torch.stack(tokens, dim=2)).squeeze(2)  # type: ignore[no-any-return]

    return convolved(embedding, nothing), convolved(nothing, embedding)
