"""Zipformer2 on a GPU; `moulin.encoders.zipformer2` is its plain twin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from moulin.encoders.joiner import Joiner
from moulin.encoders.norms import BiasNorm
from moulin.encoders.zipformer2 import (
    OUTPUT_DOWNSAMPLING,
    ChunkCausalConv1d,
    ConvModule,
    DownsampledStack,
    Layer,
    SelfAttention,
    Stack,
    Zipformer2,
    Zipformer2Config,
    encoded_distances,
)
from moulin.encoders.zipformer2 import FeedForward as PlainFeedForward
from moulin.gpu.encoder import Addition, Counts, GpuEncoder, Projection, bias_of, embedding_projection, on
from moulin.gpu.kernels.attention_weights import AttentionWeights, attention_weights, distance_table
from moulin.gpu.kernels.convnext import ConvNeXtWeights, convnext
from moulin.gpu.kernels.depthwise import Depthwise
from moulin.gpu.kernels.pointwise import activate_, bias_norm, bias_norm_bypass, bypass
from moulin.gpu.kernels.resampling import downsample, upsample_bypass
from moulin.gpu.kernels.subsampling import Subsampling, subsampling
from moulin.gpu.kernels.weighted_values import gated_values, weighted_values
from moulin.gpu.modules import Convolution, FeedForward


class GpuZipformer2(GpuEncoder):
    def __init__(
        self, encoder: Zipformer2, joiner: Joiner, *, device: torch.device, dtype: torch.dtype, max_frames: int
    ) -> None:
        like = torch.empty(0, device=device, dtype=dtype)
        config, embed = encoder.config, encoder.encoder_embed
        self.dtype, self.feature_dim = dtype, encoder.feature_dim
        self._factors = config.downsampling_factors
        one, two, three = (embed.conv[index] for index in (0, 2, 4))
        self._convs = Subsampling.of(one, two, three, "swoosh_r", device, dtype)  # type: ignore[arg-type]
        self._convnext = ConvNeXtWeights.of(embed.convnext, device, dtype)
        self._embed = embedding_projection(embed.out, config.embed_bands, like)
        self._embed_norm = _Norm(embed.out_norm, like)
        frames = self._convs.frames(max_frames)
        self._stacks = [
            _Stack(stack, config, index, frames, like)  # type: ignore[arg-type]
            for index, stack in enumerate(encoder.encoder.encoders)
        ]
        self._dims = config.encoder_dims
        self._downsampling = on(encoder.encoder.downsample_output.bias.softmax(dim=0), like, dtype=torch.float32)
        self._encoder_proj = Projection.of(joiner.encoder_proj, missing=None, like=like)

    def counts(self, frames: Counts) -> Counts:
        """Feature frames, those after the embedding, those of each stack, and encoder frames."""
        embedded = (frames - 7) // 2
        stacks = [-(-embedded // factor) for factor in self._factors]
        counts: Counts = np.stack([frames, embedded, *stacks, -(-embedded // OUTPUT_DOWNSAMPLING)])
        return counts

    def __call__(self, features: Tensor, counts: Tensor) -> Tensor:
        embedded = counts[1]
        x = convnext(subsampling(features, counts[0], self._convs), embedded, self._convnext)
        batch, frames = x.shape[:2]
        x = self._embed_norm(self._embed(x.view(batch * frames, -1))).view(batch, frames, -1)
        outputs: list[Tensor] = []
        for index, stack in enumerate(self._stacks):
            x = stack(x, embedded, counts[2 + index])
            outputs.append(x)
        x = downsample(self._widest(outputs), embedded, self._downsampling, max(self._dims))
        return self._encoder_proj(x.view(-1, x.shape[2])).view(*x.shape[:2], -1)

    def _widest(self, outputs: Sequence[Tensor]) -> Tensor:
        """The last stack's output; channels that it does not have are those of the last stack that has them."""
        pieces, width = [outputs[-1]], self._dims[-1]
        for output, dim in zip(reversed(outputs), reversed(self._dims), strict=True):
            if dim > width:
                pieces.append(output[..., width:dim])
                width = dim
        return torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]


class _Norm:
    def __init__(self, norm: BiasNorm, like: Tensor) -> None:
        self.bias = on(norm.bias, like, dtype=torch.float32)
        self.gain = float(norm.log_scale.exp())

    def __call__(self, rows: Tensor) -> Tensor:
        return bias_norm(rows, self.bias, self.gain)


class _Stack:
    """Layers at one frame rate, and the way there and back."""

    def __init__(
        self, stack: Stack | DownsampledStack, config: Zipformer2Config, index: int, frames: int, like: Tensor
    ) -> None:
        self._dim, self._factor = config.encoder_dims[index], config.downsampling_factors[index]
        layers = stack.layers if isinstance(stack, Stack) else stack.encoder.layers
        frames = -(-frames // self._factor)
        distances = encoded_distances(torch.empty(1, frames, 1), frames, config.pos_dim)
        self._layers = [_Layer(layer, config, index, distances, like) for layer in layers]  # type: ignore[arg-type]
        if isinstance(stack, DownsampledStack):
            self._weights = on(stack.downsample.bias.softmax(dim=0), like, dtype=torch.float32)
            self._scale = on(stack.out_combiner.bypass_scale, like, dtype=torch.float32)

    def __call__(self, x: Tensor, before: Tensor, lengths: Tensor) -> Tensor:
        """x [B, T, any width] of utterances of `before` frames, which are `lengths` at the stack's rate: [B, T, D]."""
        if self._factor == 1:
            fitted = x if x.shape[2] == self._dim else nn.functional.pad(x, (0, self._dim - x.shape[2])).contiguous()
            return self._run(fitted, lengths)
        after = self._run(downsample(x, before, self._weights, self._dim), lengths)
        return upsample_bypass(x, after, self._factor, self._scale)

    def _run(self, x: Tensor, lengths: Tensor) -> Tensor:
        rows = x.view(-1, self._dim)
        for layer in self._layers:
            rows = layer(rows, len(x), lengths)
        return rows.view_as(x)


class _Layer:
    """`moulin.encoders.zipformer2.Layer`. Biases that are added to rows wait for the next bypass."""

    def __init__(self, layer: Layer, config: Zipformer2Config, index: int, distances: Tensor, like: Tensor) -> None:
        weights, nonlin = layer.self_attn_weights, layer.nonlin_attention
        heads, self._query_dim = config.num_heads[index], config.query_head_dims[index]
        self._key_at = heads * self._query_dim
        # Both have the layer's input for theirs.
        self._in = Projection.of(weights.in_proj, layer.feed_forward1.in_proj, missing=None, like=like)
        self._hidden_at = weights.in_proj.out_features
        self._pos_dim = config.pos_head_dim
        by_head = weights.linear_pos(distances).unflatten(1, (heads, self._pos_dim)).transpose(0, 1)
        self._distances = on(distance_table(by_head), like)
        self._down1 = Addition.of(layer.feed_forward1.out_proj, like=like)
        missing = bias_of(layer.feed_forward1.out_proj)
        self._nonlin_in = Projection.of(nonlin.in_proj, missing=missing, like=like)
        self._nonlin_out = Addition.of(nonlin.out_proj, like=like)
        missing = missing + bias_of(nonlin.out_proj)
        self._attention1 = _Attention(layer.self_attn1, missing, like)
        missing = missing + bias_of(layer.self_attn1.out_proj)
        self._conv1 = _convolution(layer.conv_module1, missing, like)
        missing = missing + bias_of(layer.conv_module1.out_proj)
        self._feed_forward2 = _feed_forward(layer.feed_forward2, missing, like)
        missing = missing + bias_of(layer.feed_forward2.out_proj)
        self._missing_mid = on(missing, like, dtype=torch.float32)
        self._scale_mid = on(layer.bypass_mid.bypass_scale, like, dtype=torch.float32)

        self._attention2 = _Attention(layer.self_attn2, None, like)
        missing = bias_of(layer.self_attn2.out_proj)
        self._conv2 = _convolution(layer.conv_module2, missing, like)
        missing = missing + bias_of(layer.conv_module2.out_proj)
        self._feed_forward3 = _feed_forward(layer.feed_forward3, missing, like)
        self._missing = on(missing + bias_of(layer.feed_forward3.out_proj), like, dtype=torch.float32)
        self._norm = _Norm(layer.norm, like)
        self._scale = on(layer.bypass.bypass_scale, like, dtype=torch.float32)

    def __call__(self, before: Tensor, batch: int, lengths: Tensor) -> Tensor:
        """Rows [B T, D] to new ones."""
        projected = self._in(before)
        weights = attention_weights(
            projected.view(batch, -1, projected.shape[1]),
            lengths,
            self._distances,
            query_dim=self._query_dim,
            key_at=self._key_at,
            position_at=2 * self._key_at,
            pos_dim=self._pos_dim,
        )
        rows = self._down1.beside(before, activate_(projected[:, self._hidden_at :], "swoosh_l"))
        gates = self._nonlin_in(rows)
        gated = gated_values(weights, gates.view(batch, -1, gates.shape[1]), lengths)
        rows = self._nonlin_out(rows, gated.view(len(rows), -1))
        rows = self._attention1(rows, weights, lengths)
        rows = self._conv1(rows, batch, lengths)
        rows = self._feed_forward2(rows)
        rows = bypass(rows, self._missing_mid, before, self._scale_mid)

        rows = self._attention2(rows, weights, lengths)
        rows = self._conv2(rows, batch, lengths)
        rows = self._feed_forward3(rows)
        return bias_norm_bypass(rows, self._missing, self._norm.bias, self._norm.gain, before, self._scale)


class _Attention:
    def __init__(self, attention: SelfAttention, missing: Tensor | None, like: Tensor) -> None:
        self._in = Projection.of(attention.in_proj, missing=missing, like=like)
        self._out = Addition.of(attention.out_proj, like=like)

    def __call__(self, rows: Tensor, weights: AttentionWeights, lengths: Tensor) -> Tensor:
        values = self._in(rows)
        mixed = weighted_values(weights, values.view(len(lengths), -1, values.shape[1]), lengths)
        return self._out(rows, mixed.view_as(values))


def _convolution(module: ConvModule, missing: Tensor, like: Tensor) -> Convolution:
    conv = _depthwise(module.depthwise_conv, like)
    return Convolution(module.in_proj, conv, module.out_proj, "swoosh_r", missing=missing, like=like)


def _feed_forward(module: PlainFeedForward, missing: Tensor, like: Tensor) -> FeedForward:
    return FeedForward(module.in_proj, module.out_proj, "swoosh_l", missing=missing, like=like)


def _depthwise(conv: nn.Conv1d | ChunkCausalConv1d, like: Tensor) -> Depthwise:
    if isinstance(conv, nn.Conv1d):
        assert conv.bias is not None
        weight = on(conv.weight[:, 0].t(), like)
        return Depthwise(weight, on(conv.bias, like), len(weight) // 2)
    chunkwise, causal = conv.chunkwise_conv, conv.causal_conv
    assert chunkwise.bias is not None
    assert causal.bias is not None
    weight = on(chunkwise.weight[:, 0].t(), like)
    return Depthwise(
        weight,
        on(chunkwise.bias, like),
        len(weight) // 2,
        on(causal.weight[:, 0].t(), like),
        on(causal.bias, like),
        on(conv.chunkwise_conv_scale.transpose(1, 2), like),
    )
