"""Small models with odd sizes and random weights."""

from __future__ import annotations

import torch
from torch import nn

from moulin.encoders.conformer import Conformer, ConformerConfig
from moulin.encoders.decoder import Decoder
from moulin.encoders.encoder import Encoder
from moulin.encoders.joiner import Joiner
from moulin.encoders.lstm import Lstm, LstmConfig
from moulin.encoders.recipe import Recipe
from moulin.encoders.subsampling import SubsamplingConfig
from moulin.encoders.transducer import Transducer
from moulin.encoders.zipformer import Zipformer, ZipformerConfig
from moulin.encoders.zipformer2 import Zipformer2, Zipformer2Config


def random_zipformer2(*, causal: bool) -> Transducer:
    """A Zipformer2 whose stacks have other heads each."""
    config = Zipformer2Config(
        num_layers=(1, 1, 1),
        downsampling_factors=(1, 2, 1),
        encoder_dims=(28, 44, 36),
        num_heads=(3, 2, 5),
        query_head_dims=(5, 18, 8),
        value_head_dims=(3, 7, 20),
        feedforward_dims=(17, 26, 31),
        conv_kernels=(7, 5, 9),
        pos_dim=10,
        pos_head_dims=(6, 3, 17),
        causal=causal,
        embed_channels=(4, 8, 16),
    )
    return _random(Zipformer2(config))


def random_zipformer(recipe: Recipe) -> Transducer:
    """A Zipformer whose stacks have other sizes each."""
    config = ZipformerConfig(
        num_encoder_layers=(1, 1, 1),
        encoder_dims=(24, 40, 44),
        attention_dims=(18, 20, 16),
        nhead=(3, 5, 2),
        feedforward_dims=(16, 24, 32),
        cnn_module_kernels=(7, 3, 9),
        downsampling_factors=(1, 3, 2),
        feature_dim=23,
        pos_dim=5,
    )
    return _random(Zipformer(config), recipe)


def random_lstm(*, cells: int) -> Transducer:
    config = LstmConfig(num_layers=2, dim=36, cells=cells, hidden=20, subsampling=SubsamplingConfig(25, (3, 5, 17), 0))
    return _random(Lstm(config))


def random_conformer(recipe: Recipe) -> Transducer:
    config = ConformerConfig(
        num_layers=2, dim=36, num_heads=3, hidden=20, kernel=7, subsampling=SubsamplingConfig(23, (3, 5, 17))
    )
    return _random(Conformer(config), recipe)


def _random(encoder: Encoder, recipe: Recipe | None = None) -> Transducer:
    if recipe is not None:
        encoder.recipe = recipe
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    joiner = Joiner(encoder.output_dim, 9, 13, 19)
    nn.init.normal_(joiner.encoder_proj.weight, std=0.3)
    return Transducer(encoder, Decoder(19, 9, 3, groups=9), joiner).eval().requires_grad_(False)
