"""A whole transducer from the tensors of one checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Self

from torch import Tensor, nn

from moulin.encoders import ctc_head
from moulin.encoders.conformer import Conformer
from moulin.encoders.ctc_head import CtcHead
from moulin.encoders.decoder import Decoder
from moulin.encoders.encoder import Encoder
from moulin.encoders.joiner import Joiner
from moulin.encoders.lstm import Lstm
from moulin.encoders.recipe import NOTHING_SAID, Recipe
from moulin.encoders.tensors import part
from moulin.encoders.zipformer import Zipformer
from moulin.encoders.zipformer2 import Zipformer2

# Modules of some recipes that change the encoder's input, so that encoder, decoder and joiner alone are wrong.
_NEEDED_ELSEWHERE = {
    "mask_encoder.": "it separates people who speak at once (SURT)",
    "joint_encoder_layer.": "it hears several channels together (SURT)",
    # Its joiner was trained on frames that have gone through this convolution.
    "lconv.": "a convolution between encoder and joiner (the recipe pruned_transducer_stateless7_ctc_bs)",
}
# Tensors that only training uses: counters of balancers, and a parameter of Zipformer2's layers.
_UNUSED = re.compile(r"\.count$|layers\.\d+\.bypass_scale$")


class Transducer(nn.Module):
    """Encoder, decoder and joiner, and a CTC head where one was trained beside them; without the modules that only
    training needs (simple_am_proj, ...)."""

    def __init__(self, encoder: Encoder, decoder: Decoder, joiner: Joiner, ctc: CtcHead | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder, self.joiner, self.ctc = encoder, decoder, joiner, ctc

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> Self:
        """The transducer with the parameters `tensors`, under Icefall's names; sizes come from their shapes.

        `recipe` has the facts that shapes do not determine. Raises ValueError for other models than Icefall's
        transducers, where parts are missing or do not fit together, and where `recipe` contradicts the shapes.
        """
        for prefix, what in _NEEDED_ELSEWHERE.items():
            if any(name.startswith(prefix) for name in tensors):
                raise ValueError(f"it has '{prefix}*': {what}, which moulin does not support")
        encoder = _encoder(tensors, recipe)
        decoder = Decoder.from_tensors(_named(tensors, "decoder."), bigram_relu=not isinstance(encoder, Zipformer2))
        joiner = Joiner.from_tensors(_named(tensors, "joiner."))
        has_ctc = any(name.startswith(ctc_head.PREFIX) for name in tensors)
        ctc = CtcHead.from_tensors(tensors) if has_ctc else None
        if ctc is not None and ctc.encoder_dim != encoder.output_dim:
            raise ValueError(
                f"expected the CTC head's channels to be {encoder.output_dim} as the encoder's, got {ctc.encoder_dim}"
            )
        for what, got, wanted in (
            ("the encoder's channels", encoder.output_dim, joiner.encoder_proj.in_features),
            ("the decoder's channels", decoder.dim, joiner.decoder_proj.in_features),
            ("the decoder's vocabulary", decoder.vocab_size, joiner.vocab_size),
            ("the CTC head's vocabulary", ctc.vocab_size if ctc else joiner.vocab_size, joiner.vocab_size),
        ):
            if got != wanted:
                raise ValueError(f"expected {what} to be {wanted} as in the joiner, got {got}")
        return cls(encoder, decoder, joiner, ctc)

    def tensors(self) -> dict[str, Tensor]:
        """All parameters under Icefall's names; `from_tensors` builds the same transducer from them."""
        # Zipformer2's embedding is beside its encoder, the others' within it.
        embedded = "" if isinstance(self.encoder, Zipformer2) else "encoder."
        parts = ((embedded, self.encoder), ("decoder.", self.decoder), ("joiner.", self.joiner))
        tensors = {f"{prefix}{name}": tensor for prefix, part in parts for name, tensor in part.state_dict().items()}
        return {**tensors, **self.ctc.state_dict()} if self.ctc else tensors

    def unknown(self, names: Iterable[str]) -> list[str]:
        """The tensors among a checkpoint's `names` that are in one of the three parts but have no parameter here."""
        known = self.tensors().keys()
        parts = ("encoder.", "encoder_embed.", "decoder.", "joiner.")
        return sorted(
            name for name in names if name.startswith(parts) and name not in known and not _UNUSED.search(name)
        )

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


def family_of(tensors: Mapping[str, Tensor]) -> type[Encoder]:
    """The encoder's class, recognised by tensor names. Raises ValueError."""
    names = "\n".join(tensors)
    if ".self_attn_weights." in names:
        return Zipformer2
    if "encoder.encoder.layers.0.lstm.weight_ih_l0" in tensors:
        return Lstm
    if "encoder.encoder.layers.0.self_attn.pos_bias_u" in tensors:
        return Conformer
    if any(name.startswith("encoder.encoders.0.") for name in tensors):
        return Zipformer
    raise ValueError("its parameters are not those of a Conformer, Zipformer, Zipformer2 or LSTM transducer of Icefall")


def _encoder(tensors: Mapping[str, Tensor], recipe: Recipe) -> Encoder:
    family = family_of(tensors)
    # Zipformer2's embedding is beside its encoder, the others' within it.
    if family is Zipformer2:
        named = {name: tensor for name, tensor in tensors.items() if name.startswith(("encoder.", "encoder_embed."))}
        return Zipformer2.from_tensors(named, recipe)
    return family.from_tensors(part(tensors, "encoder."), recipe)


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = part(tensors, prefix)
    if not found:
        raise ValueError(f"it has no '{prefix}*', so it is not a transducer (perhaps a CTC or attention model)")
    return found
