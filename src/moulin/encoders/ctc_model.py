"""A model with a CTC head alone, from the tensors of one checkpoint (Icefall's `--use-transducer 0 --use-ctc 1`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor

from moulin.encoders import ctc_head
from moulin.encoders.acoustic_model import AcousticModel, encoder_and_head, has_part
from moulin.encoders.ctc_head import CtcHead
from moulin.encoders.encoder import Encoder
from moulin.encoders.recipe import NOTHING_SAID, Recipe
from moulin.encoders.tensors import Uninitialized


class CtcModel(AcousticModel):
    """Encoder and CTC head."""

    ctc: CtcHead

    def __init__(self, encoder: Encoder, ctc: CtcHead) -> None:
        super().__init__(encoder, ctc)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> Self:
        """The model with the parameters `tensors`, under Icefall's names. Raises ValueError where a part is missing or
        does not fit, and where `recipe` contradicts the shapes."""
        with Uninitialized():
            encoder, ctc = encoder_and_head(tensors, recipe)
        if ctc is None:
            raise ValueError(f"it has no '{ctc_head.PREFIX}*'")
        return cls(encoder, ctc)

    @property
    def vocab_size(self) -> int:
        return self.ctc.vocab_size

    def log_probs(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, T, feature_dim] and their lengths [N] to log-probabilities [N, T', vocab_size] and their numbers
        [N], as Icefall's CTC export computes them."""
        encoder_out, lengths = self.encoder(x, x_lens)
        return self.ctc(encoder_out), lengths


def is_ctc_alone(tensors: Mapping[str, Tensor]) -> bool:
    """Whether `tensors` have a CTC head and nothing of a transducer."""
    return has_part(tensors, ctc_head.PREFIX) and not any(has_part(tensors, part) for part in ("decoder.", "joiner."))
