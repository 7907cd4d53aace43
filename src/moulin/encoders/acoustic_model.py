"""Parts that Icefall's models of any head have in common: the encoder, and the CTC head where there is one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from moulin.encoders import ctc_head
from moulin.encoders.conformer import Conformer
from moulin.encoders.ctc_head import CtcHead
from moulin.encoders.encoder import Encoder
from moulin.encoders.lstm import Lstm
from moulin.encoders.recipe import Recipe
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


class AcousticModel(nn.Module):
    """An encoder with the heads that decode its frames; without the modules that only training needs."""

    def __init__(self, encoder: Encoder, ctc: CtcHead | None) -> None:
        super().__init__()
        self.encoder, self.ctc = encoder, ctc

    @property
    def vocab_size(self) -> int:
        """The number of tokens, blank included."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """All parameters under Icefall's names, of which the same model can be built."""
        # Zipformer2's embedding is beside its encoder, the others' within it.
        embedded = "" if isinstance(self.encoder, Zipformer2) else "encoder."
        tensors = {f"{embedded}{name}": tensor for name, tensor in self.encoder.state_dict().items()}
        return {**tensors, **self.ctc.state_dict()} if self.ctc else tensors

    def unknown(self, names: Iterable[str]) -> list[str]:
        """The tensors among a checkpoint's `names` that are in one of the parts but have no parameter here."""
        known = self.tensors().keys()
        parts = ("encoder.", "encoder_embed.", "decoder.", "joiner.")
        return sorted(
            name for name in names if name.startswith(parts) and name not in known and not _UNUSED.search(name)
        )


def encoder_and_head(tensors: Mapping[str, Tensor], recipe: Recipe) -> tuple[Encoder, CtcHead | None]:
    """The parts of `AcousticModel` with the parameters `tensors`. Raises ValueError for other models than Icefall's,
    where the two do not fit, and where `recipe` contradicts the shapes."""
    for prefix, what in _NEEDED_ELSEWHERE.items():
        if any(name.startswith(prefix) for name in tensors):
            raise ValueError(f"it has '{prefix}*': {what}, which moulin does not support")
    encoder = _encoder(tensors, recipe)
    if not has_part(tensors, ctc_head.PREFIX):
        return encoder, None
    ctc = CtcHead.from_tensors(tensors)
    if ctc.encoder_dim != encoder.output_dim:
        raise ValueError(
            f"expected the CTC head's channels to be {encoder.output_dim} as the encoder's, got {ctc.encoder_dim}"
        )
    return encoder, ctc


def has_part(tensors: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)


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
