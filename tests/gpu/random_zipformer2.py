"""A Zipformer2 whose stacks have other heads each, with random weights."""

from __future__ import annotations

import torch
from torch import nn

from moulin.encoders.decoder import Decoder
from moulin.encoders.joiner import Joiner
from moulin.encoders.transducer import Transducer
from moulin.encoders.zipformer2 import Zipformer2, Zipformer2Config


def random_zipformer2(*, causal: bool) -> Transducer:
    config = Zipformer2Config(
        num_layers=(1, 1, 1),
        downsampling_factors=(1, 2, 1),
        encoder_dims=(24, 40, 32),
        num_heads=(3, 2, 5),
        query_head_dims=(5, 18, 8),
        value_head_dims=(3, 7, 20),
        feedforward_dims=(16, 24, 32),
        conv_kernels=(7, 5, 9),
        pos_dim=10,
        pos_head_dims=(6, 3, 17),
        causal=causal,
        embed_channels=(4, 8, 16),
    )
    encoder = Zipformer2(config)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    joiner = Joiner(encoder.output_dim, 8, 12, 20)
    nn.init.normal_(joiner.encoder_proj.weight, std=0.3)
    return Transducer(encoder, Decoder(20, 8, 2), joiner).eval().requires_grad_(False)
