"""Zipformer2 on a GPU; `moulin.encoders.zipformer2` is its plain twin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic

import numpy as np
import torch
from torch import Tensor, nn

from moulin.encoders.norms import BiasNorm
from moulin.encoders.zipformer2 import (
    OUTPUT_DOWNSAMPLING,
    ChunkCausalConv1d,
    DownsampledStack,
    Layer,
    Stack,
    Zipformer2,
    Zipformer2Config,
    encoded_distances,
)
from moulin.encoders.zipformer2 import FeedForward as PlainFeedForward
from moulin.gpu.encoder import Addition, At, Counts, GpuEncoder, Projection, bias_of, embedding_projection, on
from moulin.gpu.kernels.attention_weights import AttentionWeights, attention_weights, distance_table
from moulin.gpu.kernels.convnext import ConvNeXtWeights, convnext
from moulin.gpu.kernels.depthwise import Depthwise, depthwise
from moulin.gpu.kernels.pointwise import activate_, bias_norm, bias_norm_bypass, bypass, gate
from moulin.gpu.kernels.resampling import downsample, upsample_bypass
from moulin.gpu.kernels.subsampling import Subsampling, subsampling
from moulin.gpu.kernels.weighted_values import gated_values, weighted_values
from moulin.gpu.modules import FeedForward


class GpuZipformer2(GpuEncoder):
    def __init__(
        self, encoder: Zipformer2, out: nn.Linear, *, device: torch.device, dtype: torch.dtype, max_frames: int
    ) -> None:
        like = torch.empty(0, device=device, dtype=dtype)
        config, embed = encoder.config, encoder.encoder_embed
        self.dtype, self.feature_dim, self.out_channels = dtype, encoder.feature_dim, out.out_features
        self._factors = config.downsampling_factors
        one, two, three = (embed.conv[index] for index in (0, 2, 4))
        self._convs = Subsampling.of(one, two, three, "swoosh_r", device, dtype)  # type: ignore[arg-type]
        self._convnext = ConvNeXtWeights.of(embed.convnext, device, dtype)
        self._embed = embedding_projection(embed.out, config.embed_bands, like)
        self._embed_norm = Norm(embed.out_norm, like)
        frames = self._convs.frames(max_frames)
        self._stacks = [
            Zipformer2Stack(stack, config, index, partial(_UtteranceLayer, frames=frames), like)  # type: ignore[arg-type]
            for index, stack in enumerate(encoder.encoder.encoders)
        ]
        self._dims = config.encoder_dims
        self._downsampling = on(encoder.encoder.downsample_output.bias.softmax(dim=0), like, dtype=torch.float32)
        self._out_layer = Projection.of(out, missing=None, like=like)

    def counts(self, frames: Counts) -> Counts:
        """Counts of feature frames, of frames after the embedding and in each stack, and of encoder frames."""
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
        x = downsample(widest(outputs, self._dims), embedded, self._downsampling, max(self._dims))
        return self._out_layer(x.view(-1, x.shape[2])).view(*x.shape[:2], -1)


def widest(outputs: Sequence[Tensor], dims: Sequence[int]) -> Tensor:
    """The last stack's output; each channel that it lacks comes from the last stack that has it."""
    pieces, width = [outputs[-1]], dims[-1]
    for output, dim in zip(reversed(outputs), reversed(dims), strict=True):
        if dim > width:
            pieces.append(output[..., width:dim])
            width = dim
    return torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]


class Norm:
    def __init__(self, norm: BiasNorm, like: Tensor) -> None:
        self.bias = on(norm.bias, like, dtype=torch.float32)
        self.gain = float(norm.log_scale.exp())

    def __call__(self, rows: Tensor) -> Tensor:
        return bias_norm(rows, self.bias, self.gain)


class Zipformer2Stack(Generic[At]):
    """Layers at one frame rate, with the resampling before and after them."""

    def __init__(
        self,
        stack: Stack | DownsampledStack,
        config: Zipformer2Config,
        index: int,
        make_layer: Callable[[Layer, Zipformer2Config, int, Tensor], Zipformer2Layer[At]],
        like: Tensor,
    ) -> None:
        self._dim, self._factor = config.encoder_dims[index], config.downsampling_factors[index]
        layers = stack.layers if isinstance(stack, Stack) else stack.encoder.layers
        self._layers = [make_layer(layer, config, index, like) for layer in layers]  # type: ignore[arg-type]
        if isinstance(stack, DownsampledStack):
            self._weights = on(stack.downsample.bias.softmax(dim=0), like, dtype=torch.float32)
            self._scale = on(stack.out_combiner.bypass_scale, like, dtype=torch.float32)

    def __call__(self, x: Tensor, before: Tensor, at: At) -> Tensor:
        """x [B, T, any width], with `before` int32 [B] frames each, to [B, T, D]; `at` is passed to the layers."""
        if self._factor == 1:
            fitted = x if x.shape[2] == self._dim else nn.functional.pad(x, (0, self._dim - x.shape[2])).contiguous()
            return self._run(fitted, at)
        after = self._run(downsample(x, before, self._weights, self._dim), at)
        return upsample_bypass(x, after, self._factor, self._scale)

    def _run(self, x: Tensor, at: At) -> Tensor:
        rows = x.view(-1, self._dim)
        for layer in self._layers:
            rows = layer(rows, at)
        return rows.view_as(x)


class Zipformer2Layer(ABC, Generic[At]):
    """`moulin.encoders.zipformer2.Layer`. Biases of additions to rows are added in the next bypass.

    Modules that mix frames are abstract: the other frames are in the same utterance, or in a stream's past. `At`
    describes the batch.
    """

    def __init__(self, layer: Layer, config: Zipformer2Config, stack: int, distances: Tensor, like: Tensor) -> None:
        """`distances` are `encoded_distances` between any two frames."""
        weights, nonlin = layer.self_attn_weights, layer.nonlin_attention
        heads, self._query_dim = config.num_heads[stack], config.query_head_dims[stack]
        self._key_at = heads * self._query_dim
        # One product, because both have the layer's input as theirs.
        self._in = Projection.of(weights.in_proj, layer.feed_forward1.in_proj, missing=None, like=like)
        self._hidden_at = weights.in_proj.out_features
        self._pos_dim = config.pos_head_dims[stack]
        by_head = weights.linear_pos(distances).unflatten(1, (heads, self._pos_dim)).transpose(0, 1)
        self._distances = on(distance_table(by_head), like)
        self._down1 = Addition.of(layer.feed_forward1.out_proj, like=like)
        missing = bias_of(layer.feed_forward1.out_proj)
        self._nonlin_in = Projection.of(nonlin.in_proj, missing=missing, like=like)
        self._nonlin_out = Addition.of(nonlin.out_proj, like=like)
        missing = missing + bias_of(nonlin.out_proj)
        self._values1 = Projection.of(layer.self_attn1.in_proj, missing=missing, like=like)
        self._mixed1 = Addition.of(layer.self_attn1.out_proj, like=like)
        missing = missing + bias_of(layer.self_attn1.out_proj)
        self._gates1 = Projection.of(layer.conv_module1.in_proj, missing=missing, like=like)
        self._convolved1 = Addition.of(layer.conv_module1.out_proj, like=like)
        self._conv1 = _depthwise(layer.conv_module1.depthwise_conv, like)
        missing = missing + bias_of(layer.conv_module1.out_proj)
        self._feed_forward2 = _feed_forward(layer.feed_forward2, missing, like)
        missing = missing + bias_of(layer.feed_forward2.out_proj)
        self._missing_mid = on(missing, like, dtype=torch.float32)
        self._scale_mid = on(layer.bypass_mid.bypass_scale, like, dtype=torch.float32)

        self._values2 = Projection.of(layer.self_attn2.in_proj, missing=None, like=like)
        self._mixed2 = Addition.of(layer.self_attn2.out_proj, like=like)
        missing = bias_of(layer.self_attn2.out_proj)
        self._gates2 = Projection.of(layer.conv_module2.in_proj, missing=missing, like=like)
        self._convolved2 = Addition.of(layer.conv_module2.out_proj, like=like)
        self._conv2 = _depthwise(layer.conv_module2.depthwise_conv, like)
        missing = missing + bias_of(layer.conv_module2.out_proj)
        self._feed_forward3 = _feed_forward(layer.feed_forward3, missing, like)
        self._missing = on(missing + bias_of(layer.feed_forward3.out_proj), like, dtype=torch.float32)
        self._norm = Norm(layer.norm, like)
        self._scale = on(layer.bypass.bypass_scale, like, dtype=torch.float32)

    def __call__(self, before: Tensor, at: At) -> Tensor:
        """Rows [B T, D] to new rows."""
        projected = self._in(before)
        weights = self._weigh(projected, at)
        rows = self._down1.beside(before, activate_(projected[:, self._hidden_at :], "swoosh_l"))
        rows = self._nonlin_out(rows, self._gate(weights, self._nonlin_in(rows), at))
        rows = self._mixed1(rows, self._mix(weights, self._values1(rows), at, 0))
        rows = self._convolved1(rows, self._convolve(self._gates1(rows), self._conv1, at, 0))
        rows = self._feed_forward2(rows)
        rows = bypass(rows, self._missing_mid, before, self._scale_mid)

        rows = self._mixed2(rows, self._mix(weights, self._values2(rows), at, 1))
        rows = self._convolved2(rows, self._convolve(self._gates2(rows), self._conv2, at, 1))
        rows = self._feed_forward3(rows)
        return bias_norm_bypass(rows, self._missing, self._norm.bias, self._norm.gain, before, self._scale)

    @abstractmethod
    def _weigh(self, projected: Tensor, at: At) -> Any:
        """Attention weights for `_gate` and `_mix`: `projected` rows hold queries, keys from column `_key_at` on, and
        then positional queries."""

    @abstractmethod
    def _gate(self, weights: Any, projected: Tensor, at: At) -> Tensor:
        """y * (weights @ (tanh(s) * x)) with the first head's weights; `projected` rows hold s, x and y."""

    @abstractmethod
    def _mix(self, weights: Any, values: Tensor, at: At, module: int) -> Tensor:
        """Weighted `values`, in the layer's first (0) or second attention module."""

    @abstractmethod
    def _convolve(self, projected: Tensor, conv: Depthwise, at: At, module: int) -> Tensor:
        """Values times the sigmoid of gates, convolved and activated, in the first or second module."""


class _UtteranceLayer(Zipformer2Layer[Tensor]):
    """A layer for a batch of utterances, described by their lengths int32 [B]."""

    def __init__(self, layer: Layer, config: Zipformer2Config, stack: int, like: Tensor, *, frames: int) -> None:
        frames = -(-frames // config.downsampling_factors[stack])
        distances = encoded_distances(torch.empty(1, frames, 1), frames, config.pos_dim)
        super().__init__(layer, config, stack, distances, like)

    def _weigh(self, projected: Tensor, at: Tensor) -> AttentionWeights:
        return attention_weights(
            _by_utterance(projected, at),
            at,
            self._distances,
            query_dim=self._query_dim,
            key_at=self._key_at,
            position_at=2 * self._key_at,
            pos_dim=self._pos_dim,
        )

    def _gate(self, weights: AttentionWeights, projected: Tensor, at: Tensor) -> Tensor:
        return gated_values(weights, _by_utterance(projected, at), at).flatten(0, 1)

    def _mix(self, weights: AttentionWeights, values: Tensor, at: Tensor, module: int) -> Tensor:  # noqa: ARG002
        return weighted_values(weights, _by_utterance(values, at), at).flatten(0, 1)

    def _convolve(self, projected: Tensor, conv: Depthwise, at: Tensor, module: int) -> Tensor:  # noqa: ARG002
        return depthwise(_by_utterance(gate(projected), at), at, conv, "swoosh_r").flatten(0, 1)


def _by_utterance(rows: Tensor, lengths: Tensor) -> Tensor:
    """Rows [B T, D] as [B, T, D]."""
    return rows.view(len(lengths), -1, rows.shape[1])


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
