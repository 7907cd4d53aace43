"""Skipping of frames that the CTC head takes for blank, on the card; `moulin.decoding.blank_skip` says what it is.

The CTC head's layer lies beside the joiner's projection, as more columns of one product: the encoder's output has its
logits behind the joiner's channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from moulin.encoders.ctc_model import CtcModel
from moulin.encoders.transducer import Transducer
from moulin.gpu.encoder import bias_of
from moulin.gpu.kernels.searches import FoundTensors


def output_layer(model: Transducer | CtcModel) -> nn.Linear:
    """What follows the encoder: of a transducer the joiner's projection, and behind its channels the logits of the CTC
    head where it has one; of a CTC model these alone."""
    if isinstance(model, CtcModel):
        return model.ctc.logits
    joiner = model.joiner.encoder_proj
    if model.ctc is None:
        return joiner
    head = model.ctc.logits
    both = nn.Linear(joiner.in_features, joiner.out_features + head.out_features)
    weight = torch.cat([joiner.weight.detach().float(), head.weight.detach().float()])
    both.load_state_dict({"weight": weight, "bias": torch.cat([bias_of(joiner), bias_of(head)])})
    return both


def blank_log_probs(logits: Tensor) -> Tensor:
    """The CTC head's log-probability of blank, float32 [B, T], of its logits [B, T, vocab_size]."""
    # A copy, so that the memory of the other tokens' is free.
    return logits.log_softmax(dim=-1, dtype=torch.float32)[..., 0].contiguous()


def with_blank(encoded: Tensor, joiner_dim: int) -> Tensor:
    """Frames [B, T, channels] of `output_layer` as searches on the host take them (`moulin.decoding.blank_skip`):
    float32 [B, T, joiner_dim], or with the channel of blank."""
    if encoded.shape[2] == joiner_dim:
        return encoded.float()
    blanks = blank_log_probs(encoded[..., joiner_dim:])
    return torch.cat([encoded[..., :joiner_dim].float(), blanks[..., None]], dim=-1)


class SpokenFrames(NamedTuple):
    """The frames of B rows that are left for the search."""

    encoder_out: Tensor
    """[B, T, joiner_dim], those that are left in front."""
    lengths: Tensor
    """int32 [B]"""
    frames: Tensor
    """int64 [B, T]: the number of each frame before any was skipped."""

    def give_their_numbers(self, found: FoundTensors) -> None:
        """Replace the frames' numbers in `found` by those that they had before any was skipped, in place."""
        # Behind the tokens of a place there may be anything, also a number that no frame has.
        numbers = found.frames.clamp(0, self.frames.shape[1] - 1).long()
        found.frames.copy_(self.frames.expand(len(numbers), -1, -1).gather(2, numbers))


def skip_blanks(encoder_out: Tensor, blanks: Tensor, lengths: Tensor, thresholds: Tensor) -> SpokenFrames:
    """The frames of encoder_out [B, T, joiner_dim], of which the first `lengths` int32 [B] are valid, whose `blanks`
    [B, T], log-probabilities, are below the `thresholds` [B] of their rows.

    No value is read by the host, so nobody waits.
    """
    time = torch.arange(blanks.shape[1], device=blanks.device)
    # NaN is not skipped: the search finds it, and an encoder that gives NaN is an error.
    kept = ~(blanks >= thresholds[:, None]) & (time < lengths[:, None])
    frames = (~kept).to(torch.int8).argsort(dim=1, stable=True)  # "kept" is 0: moves to the front
    rows = torch.arange(len(frames), device=frames.device)[:, None]
    return SpokenFrames(encoder_out[rows, frames], kept.sum(dim=1, dtype=torch.int32), frames)
