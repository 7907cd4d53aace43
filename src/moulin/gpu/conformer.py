"""The Conformer on a GPU; `moulin.encoders.conformer` is its plain twin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic

import numpy as np
import torch
from torch import Tensor, nn

from moulin.encoders.conformer import Conformer, RelativeAttention, relative_positions
from moulin.encoders.conformer import ConformerLayer as PlainLayer
from moulin.gpu.encoder import Addition, At, Counts, GpuEncoder, Projection, bias_of, on
from moulin.gpu.kernels.depthwise import Depthwise
from moulin.gpu.kernels.pointwise import basic_norm
from moulin.gpu.kernels.relative_attention import relative_attention
from moulin.gpu.modules import Convolution, Embedding, FeedForward, convolved, linear_layers


class GpuConformer(GpuEncoder):
    def __init__(
        self, encoder: Conformer, out: nn.Linear, *, device: torch.device, dtype: torch.dtype, max_frames: int
    ) -> None:
        like = torch.empty(0, device=device, dtype=dtype)
        self.dtype, self.feature_dim, self.out_channels = dtype, encoder.feature_dim, out.out_features
        self._embed = Embedding(encoder.encoder_embed, like)
        frames = self._embed.frames(max_frames) + 1
        positions = relative_positions(frames, frames, encoder.output_dim, torch.empty(0))
        self._layers = [_UtteranceLayer(layer, positions, like) for layer in encoder.encoder.layers]  # type: ignore[arg-type]
        self._out_layer = Projection.of(out, missing=None, like=like)

    def counts(self, frames: Counts) -> Counts:
        """Counts of feature frames and of encoder frames."""
        counts: Counts = np.stack([frames, (frames - 3) // 4])
        return counts

    def __call__(self, features: Tensor, counts: Tensor) -> Tensor:
        rows = self._embed(features, counts[0])
        for layer in self._layers:
            rows = layer(rows, counts[1])
        return self._out_layer(rows).view(len(features), self._embed.frames(features.shape[1]), -1)


class ConformerLayer(ABC, Generic[At]):
    """`moulin.encoders.conformer.ConformerLayer`. Biases of additions to rows are added in the norm at the end.

    Modules that mix frames are abstract: the other frames are in the same utterance, or in a stream's past. `At`
    describes the batch.
    """

    def __init__(self, layer: PlainLayer, positions: Tensor, like: Tensor, *, causal: bool) -> None:
        """`positions` are the encoded distances between any two frames."""
        (up1, down1), (up2, down2) = linear_layers(layer.feed_forward_macaron), linear_layers(layer.feed_forward)
        attention, conv = layer.self_attn, layer.conv_module
        self._feed_forward1 = FeedForward(up1, down1, "double_swish", missing=None, like=like)
        missing = bias_of(down1)
        self._attention_in = _attention_in(attention, missing, like)
        self._attention_out = Addition.of(attention.out_proj, like=like)
        self._distances = on(attention.linear_pos(positions), like)
        self._content_shift = on(attention.pos_bias_u - attention.pos_bias_v, like)
        missing = missing + bias_of(attention.out_proj)
        self._conv = Convolution.of(
            conv.pointwise_conv1, conv.depthwise_conv, conv.pointwise_conv2, causal=causal, missing=missing, like=like
        )
        missing = missing + bias_of(conv.pointwise_conv2)
        self._feed_forward2 = FeedForward(up2, down2, "double_swish", missing=missing, like=like)
        self._missing = on(missing + bias_of(down2), like, dtype=torch.float32)
        self._epsilon = float(layer.norm_final.eps.exp())

    def __call__(self, rows: Tensor, at: At) -> Tensor:
        """Rows [B T, D] to new rows; the input is overwritten."""
        rows = self._feed_forward1(rows)
        rows = self._attention_out(rows, self._attend(self._attention_in(rows), at))
        rows = self._conv.last(rows, self._convolve(self._conv.first(rows), self._conv.conv, at))
        rows = self._feed_forward2(rows)
        return basic_norm(rows, self._missing, self._epsilon)

    @abstractmethod
    def _attend(self, projected: Tensor, at: At) -> Tensor:
        """Attended values [B T, D] of queries, keys and values [B T, 3 D]."""

    @abstractmethod
    def _convolve(self, projected: Tensor, conv: Depthwise, at: At) -> Tensor:
        """Values times the sigmoid of gates, `projected` [B T, 2 D], convolved and activated: [B T, D]."""


class _UtteranceLayer(ConformerLayer[Tensor]):
    """A layer for a batch of utterances, described by their lengths int32 [B]."""

    def __init__(self, layer: PlainLayer, positions: Tensor, like: Tensor) -> None:
        super().__init__(layer, positions, like, causal=layer.conv_module.causal)

    def _attend(self, projected: Tensor, at: Tensor) -> Tensor:
        by_utterance = projected.view(len(at), -1, projected.shape[1])
        return relative_attention(by_utterance, at, self._distances, self._content_shift).flatten(0, 1)

    def _convolve(self, projected: Tensor, conv: Depthwise, at: Tensor) -> Tensor:
        return convolved(projected, at, conv)


def _attention_in(attention: RelativeAttention, missing: Tensor, like: Tensor) -> Projection:
    """The projection to queries, keys and values in one product. Queries are prepared for the product with distances:
    divided by the square root of the head's dimension, with `pos_bias_v` added."""
    dim, scale = attention.dim, attention.head_dim**-0.5
    layer = nn.Linear(dim, 3 * dim)
    weight, bias = attention.in_proj.weight.detach().clone(), attention.in_proj.bias.detach().clone()
    weight[:dim] *= scale
    bias[:dim] = bias[:dim] * scale + attention.pos_bias_v.detach().flatten()
    layer.load_state_dict({"weight": weight, "bias": bias})
    return Projection.of(layer, missing=missing, like=like)
