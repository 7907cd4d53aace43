"""A whole transducer from the tensors of one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor

from moulin.encoders.acoustic_model import AcousticModel, encoder_and_head
from moulin.encoders.ctc_head import CtcHead
from moulin.encoders.decoder import Decoder
from moulin.encoders.encoder import Encoder
from moulin.encoders.joiner import Joiner
from moulin.encoders.recipe import NOTHING_SAID, Recipe
from moulin.encoders.tensors import Uninitialized, part
from moulin.encoders.zipformer2 import Zipformer2


class Transducer(AcousticModel):
    """Encoder, decoder and joiner, and a CTC head where one was trained beside them; without the modules that only
    training needs (simple_am_proj, ...)."""

    def __init__(self, encoder: Encoder, decoder: Decoder, joiner: Joiner, ctc: CtcHead | None = None) -> None:
        super().__init__(encoder, ctc)
        self.decoder, self.joiner = decoder, joiner

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> Self:
        """The transducer with the parameters `tensors`, under Icefall's names; sizes come from their shapes.

        `recipe` has the facts that shapes do not determine. Raises ValueError for other models than Icefall's
        transducers, where parts are missing or do not fit together, and where `recipe` contradicts the shapes.
        """
        with Uninitialized():
            encoder, ctc = encoder_and_head(tensors, recipe)
            decoder = Decoder.from_tensors(_named(tensors, "decoder."), bigram_relu=not isinstance(encoder, Zipformer2))
            joiner = Joiner.from_tensors(_named(tensors, "joiner."))
        for what, got, wanted in (
            ("the encoder's channels", encoder.output_dim, joiner.encoder_proj.in_features),
            ("the decoder's channels", decoder.dim, joiner.decoder_proj.in_features),
            ("the decoder's vocabulary", decoder.vocab_size, joiner.vocab_size),
            ("the CTC head's vocabulary", ctc.vocab_size if ctc else joiner.vocab_size, joiner.vocab_size),
        ):
            if got != wanted:
                raise ValueError(f"expected {what} to be {wanted} as in the joiner, got {got}")
        return cls(encoder, decoder, joiner, ctc)

    @property
    def vocab_size(self) -> int:
        return self.joiner.vocab_size

    def tensors(self) -> dict[str, Tensor]:
        """All parameters under Icefall's names; `from_tensors` builds the same transducer from them."""
        parts = (("decoder.", self.decoder), ("joiner.", self.joiner))
        own = {f"{prefix}{name}": tensor for prefix, part in parts for name, tensor in part.state_dict().items()}
        return {**super().tensors(), **own}

    def encode(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, T, feature_dim] and their lengths [N] to projected encoder frames [N, T', joiner_dim] and their
        numbers [N], as an exported encoder computes them."""
        encoder_out, lengths = self.encoder(x, x_lens)
        return self.joiner.encoder_proj(encoder_out), lengths

    def encode_with_log_probs(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`encode`, and the CTC head's log-probabilities [N, T', vocab_size]. For a transducer with a CTC head."""
        assert self.ctc is not None
        encoder_out, lengths = self.encoder(x, x_lens)
        return self.joiner.encoder_proj(encoder_out), lengths, self.ctc(encoder_out)

    def predict(self, y: Tensor) -> Tensor:
        """The last tokens int64 [N, context_size] to [N, joiner_dim], as an exported decoder computes it."""
        return self.joiner.decoder_proj(self.decoder(y))  # type: ignore[no-any-return]


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = part(tensors, prefix)
    if not found:
        raise ValueError(f"it has no '{prefix}*', so it is not a transducer (perhaps a CTC or attention model)")
    return found
